"""The plan of a command: its stages, the work of each, and an estimate of the time."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from omegaconf import DictConfig

from ome.cli.amounts import amounts
from ome.cli.workload import Amounts, DataFacts, Unit, together
from ome.config.sections import settings_of
from ome.damage import DamagedError
from ome.data.tiles import evenly_spaced
from ome.errors import UserError
from ome.pipeline.artifacts import Artefact
from ome.pipeline.forecast import Forecast, forecast_of
from ome.pipeline.registry import find_stage

if TYPE_CHECKING:
    from ome.cli.timed_parts import Timed

MOST: Final = 500
"""Largest number of parts of a stage whose work is counted; the others are extrapolated."""


@dataclass(frozen=True)
class Row:
    """One stage of a plan.

    Attributes:
        name: Name of the stage.
        title: The name, with the number of parts if there are several.
        forecast: What will happen to it.
        amounts: Its remaining work.
        faults: Why some of its parts will fail, by the names of the parts.
    """

    name: str
    title: str
    forecast: Forecast
    amounts: Amounts
    faults: Mapping[str, str]

    @property
    def computes(self) -> bool:
        """Whether it runs networks or the CRF, so that device and precision matter."""
        return bool(self.amounts.units) or self.amounts.steps != 0

    @property
    def is_known(self) -> bool:
        """Whether all of its work is known."""
        return None not in self.amounts.units.values() and self.amounts.tiles is not None

    def seconds(self, timed: "Mapping[Unit, Timed]") -> float | None:
        """A lower bound of its seconds, from the known and timed work; None where nothing was timed."""
        if self.forecast.state == "up to date":
            return 0.0
        counts = {unit: count for unit, count in self.amounts.units.items() if count and unit in timed}
        if not counts and (not self.amounts.units or any(self.amounts.units.values()) or not self.is_known):
            return None
        return sum(count * timed[unit].seconds for unit, count in counts.items())


def plan_of(config: DictConfig, names: Sequence[str], *, verify: bool = False) -> tuple[list[Row], DataFacts]:
    """Tells what a command would do, stage by stage; writes nothing.

    Args:
        config: The composed configuration.
        names: The selected stages, in order.
        verify: See `execute`.

    Returns:
        The rows of the plan, and what is known about the data that they count.

    Raises:
        UserError: See `forecast_of`; of one of several parts only where none of them can be made.
    """
    planned: dict[str, Artefact] = {}
    parts: dict[str, _Parts] = {}
    for name in names:
        parts[name] = _Parts.of(config, name, planned, verify=verify)
        planned[name] = parts[name].forecast.artefact
    facts = facts_of(config, {name: stage_parts.forecast for name, stage_parts in parts.items()})
    return [stage_parts.row(name, config, facts) for name, stage_parts in parts.items()], facts


@dataclass(frozen=True)
class _Parts:
    """The forecasts of a stage's parts; a stage without parts counts as one.

    Attributes:
        left: Settings and forecasts of the parts that will run; of the first part if none will.
        count: Number of parts; None for a stage without parts.
        faults: Why some parts will fail.
    """

    left: list[tuple[DictConfig, Forecast]]
    count: int | None
    faults: dict[str, str]

    @classmethod
    def of(cls, config: DictConfig, name: str, planned: Mapping[str, Artefact], *, verify: bool) -> "_Parts":
        stage, stage_config = find_stage(name, config), settings_of(config, name)
        several, faults = stage.several(stage_config), dict[str, str]()
        upcoming: list[tuple[DictConfig, Forecast]] = []
        parts = {name: stage_config} if several is None else several
        for title, part in parts.items():
            try:
                forecast = forecast_of(stage, part, planned, force=config.force, verify=verify)
            except UserError as error:
                faults[title] = str(error)
                if len(faults) == len(parts):
                    raise
                continue
            upcoming.append((part, forecast))
        left = [(part, forecast) for part, forecast in upcoming if forecast.state != "up to date"]
        return cls(left or upcoming[:1], None if several is None else len(parts), faults)

    @property
    def forecast(self) -> Forecast:
        """The forecast of the first part."""
        return self.left[0][1]

    def row(self, name: str, config: DictConfig, facts: DataFacts) -> Row:
        """The row of the plan; the work of many parts is extrapolated from `MOST` of them."""
        sample, work = evenly_spaced(self.left, MOST), list[Amounts]()
        for part, forecast in sample:
            try:
                work.append(amounts(name, config, part.stage, forecast, facts))
            except UserError as error:
                if self.count is None:
                    raise
                self.faults[str(part.stage.scene)] = str(error)
        total = work[0] if self.count is None else together(work, len(self.left) / len(sample))
        left = 0 if self.forecast.state == "up to date" else len(self.left)
        title = name if self.count is None else f"{name}, {left} of {self.count}"
        return Row(name, title, self.forecast, total, self.faults)


def facts_of(config: DictConfig, forecasts: Mapping[str, Forecast]) -> DataFacts:
    """What is known about the data before anything runs.

    It comes from results that the command will not replace, else from image headers and the table of tags.
    """
    from ome.cli.tile_counts import card_of_maps, tagged_tiles  # noqa: PLC0415 - loads readers of scenes

    folders: dict[str, Path] = {}
    for forecast in forecasts.values():
        folders |= {name: artefact.folder for name, artefact in forecast.inputs.items()}
    replaced = {name for name, forecast in forecasts.items() if forecast.state != "up to date"}
    folders = {name: path for name, path in folders.items() if name not in replaced}
    if "predict" in forecasts:
        return DataFacts(card=card_of_maps(settings_of(config, "predict"), forecasts["predict"].inputs))
    facts = DataFacts()
    with suppress(DamagedError):  # the stage that wrote it may be about to redo it, as with `verify=true`
        facts = DataFacts.of(folders)
    if facts.table is None and (tagged := tagged_tiles(config, facts.index)) is not None:
        return DataFacts(*tagged, prepared=False)
    return facts
