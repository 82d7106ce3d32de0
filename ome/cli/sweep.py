"""Sweeps: jobs that share results of the same fingerprint, and a comparison at the end."""

import glob
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra import compose
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, flag_override, open_dict
from omegaconf.errors import OmegaConfBaseException

from ome.cli.command_log import check_written
from ome.cli.errors import explain, fail
from ome.errors import UserError


def as_job(config: DictConfig, sweep: Path, folder: Path) -> None:
    """Turns a configuration into that of a job, with its own folder and access to other finished stages.

    Finished stages are searched in the run of that name outside the sweep, then in the other jobs' folders.

    Args:
        config: The job's configuration, changed in place.
        sweep: The folder of the sweep.
        folder: The folder of the job.
    """
    from ome.pipeline.artifacts import as_list  # noqa: PLC0415 - Hydra loads this module to print --help

    with open_dict(config):
        config.inherit = [*(as_list(config.inherit) or [config.run_dir]), f"{glob.escape(str(sweep))}/*"]
        config.run_dir = str(folder)
        if config.logger.get("group", "") is None:
            config.logger.group = sweep.name


class Sweep(Callback):
    """Names the jobs' folders after the swept values, and compares the jobs at the end."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:  # noqa: ANN401 - fixed by Hydra
        """Refuses settings by which Hydra would write into folders of something else."""
        del kwargs
        try:
            check_written(config)
        except UserError as error:  # Hydra would only warn
            fail(*error.args)
        except OmegaConfBaseException as error:
            fail(*explain(error))

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:  # noqa: ANN401 - fixed by Hydra
        """Removes constant settings from the folders' names; refuses a sweep of equal jobs."""
        self.on_run_start(config, **kwargs)
        if config.plan:
            fail("plan=true shows what one run would do: leave out -m and sweep=, and type single values")
        overrides = _overrides(config)
        if typed := [override.input_line for override in overrides if override.key_or_group == "run_dir"]:
            fail(
                f"{typed[0]}: each job of a sweep has a folder of its own: type hydra.sweep.dir=FOLDER "
                "for all of them, or inherit=RUN to reuse the results of a run"
            )
        if pair := _overridden(overrides):
            swept, later = pair
            fail(
                f"{later.input_line} overrides the swept {swept.input_line}, so that all jobs would be the "
                f"same: give the other keys of {later.key_or_group} one by one"
            )
        _check_jobs(overrides)
        same = [override.key_or_group for override in overrides if not override.is_sweep_override()]
        names = "hydra.job.config.override_dirname.exclude_keys"
        with flag_override(config.hydra, "readonly", False):
            config.hydra.overrides.hydra.append(f"{names}=[{','.join(map(repr, same))}]")

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:  # noqa: ANN401 - fixed by Hydra
        """Runs `stage=compare` over the jobs' folders."""
        del kwargs
        from ome.pipeline.artifacts import as_list  # noqa: PLC0415
        from ome.pipeline.engine import execute  # noqa: PLC0415
        from ome.progress import console  # noqa: PLC0415
        from ome.stages.compare import STAGE, show  # noqa: PLC0415 - torch is loaded where there is something to do
        from ome.tracking.stages import stage_tracker  # noqa: PLC0415

        sweep = Path(config.hydra.sweep.dir)
        recorded = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
        with open_dict(recorded):
            recorded.stage = {
                "name": STAGE.name,
                "format": "table",
                "runs": f"{glob.escape(str(sweep))}/*",
                "settings": _swept_keys(config),
            }
            recorded.inherit = as_list(config.inherit) or [config.run_dir]
            recorded.run_dir = str(sweep)
        try:
            execute(STAGE, recorded, on_finish=stage_tracker(recorded))
            show(recorded, sweep / STAGE.name)
            console.print(f"comparison: {(sweep / STAGE.name).resolve()}")
        except UserError as error:
            console.print(f"[yellow]no comparison[/]: {error}")


def _check_jobs(overrides: Sequence[Override]) -> None:
    """Composes a job for each value of each swept key, and checks it before the first job runs."""
    from ome.cli.launch import check_command  # noqa: PLC0415

    swept = [override for override in overrides if override.is_discrete_sweep()]
    first = {override.key_or_group: next(_values(override)) for override in swept}
    plain = [str(override.input_line) for override in overrides if not override.is_sweep_override()]
    lines: list[str] = []
    for override in swept:
        for value in _values(override):
            chosen = [*plain, *(first | {override.key_or_group: value}).values()]
            try:
                check_command(compose("config", overrides=chosen))
            except UserError as error:
                lines += error.args
            except (HydraException, OmegaConfBaseException) as error:  # else Hydra warns and goes on
                fail(*explain(error))
    if lines:
        fail(*dict.fromkeys(lines))


def _values(override: Override) -> Iterator[str]:
    """The overrides of the single values of a sweep over a key."""
    return (f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator())


def _overrides(config: DictConfig) -> list[Override]:
    """Overrides of the predefined sweep and the command line; the last one of each key wins."""
    params = [f"{key}={value}" for key, value in (config.hydra.sweeper.get("params") or {}).items()]
    parsed = OverridesParser.create().parse_overrides([*params, *config.hydra.overrides.task])
    return list({override.key_or_group: override for override in parsed}.values())


def _swept_keys(config: DictConfig) -> list[str]:
    """The swept keys as `stage=compare` spells them."""
    keys = [override.key_or_group for override in _overrides(config) if override.is_sweep_override()]
    return [key.replace("/", ".") for key in keys if key != "seed"]


def _overridden(overrides: Sequence[Override]) -> tuple[Override, Override] | None:
    """Finds a swept key that a later override sets too, as `tile={size: 64}` does for `tile.size`."""
    for place, swept in enumerate(overrides):
        if not swept.is_sweep_override():
            continue
        for later in overrides[place + 1 :]:
            inside = swept.key_or_group.removeprefix(f"{later.key_or_group}.")
            if inside == swept.key_or_group or later.is_sweep_override():
                continue
            value: Any = later.value()
            for key in inside.split("."):
                value = value.get(key) if isinstance(value, Mapping) else None
            if value is not None:
                return swept, later
    return None
