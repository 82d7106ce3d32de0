"""The plan of a command as a table, with times where they were asked for."""

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final, Literal

from omegaconf import DictConfig
from rich.markup import escape
from rich.table import Table

from ome.cli.amounts import RANDOM
from ome.cli.plan import Row, plan_of
from ome.cli.workload import DataFacts, Unit
from ome.progress import console, duration

if TYPE_CHECKING:
    from ome.cli.timed_parts import Timed

COLOURS: Final = {"up to date": "green", "resumes": "yellow", "runs": "bold"}
UNKNOWN: Final = "unknown"

BUSY: Final = 0.6
"""Processor seconds by second of timed work, below which other programs are said to slow it down."""

FAULTS: Final = 5
"""Largest number of failing parts that are listed."""


def show_plan(config: DictConfig, rows: Sequence[Row]) -> None:
    """Prints the plan of a run before its first stage, without times."""
    if any(row.forecast.state != "up to date" for row in rows):
        console.print(_table(config, rows, None))
        for line in _remarks(rows):
            console.print(line, markup=False)


def show_timed_plan(config: DictConfig, names: Sequence[str], *, verify: bool) -> None:
    """Prints the plan with times, which are estimated from a few steps on this machine; see `plan_of`."""
    rows, facts = plan_of(config, names, verify=verify)
    units = {unit for row in rows for unit, count in row.amounts.units.items() if count != 0}
    alone = config.trainer.strategy == "auto"
    timed, busy = _timed(config, units, facts) if units and alone else ({}, [])
    console.print(_table(config, rows, timed))
    for line in [*_about(rows, timed, alone=alone), *busy]:
        console.print(line, markup=False)


def _timed(
    config: DictConfig, units: Collection[Unit], facts: DataFacts
) -> "tuple[Mapping[Unit, Timed], list[str]]":
    """The times of units of work, and a line if other programs have slowed them down."""
    from ome.cli.timings import timings  # noqa: PLC0415 - loads the training code
    from ome.config.objects import hardware  # noqa: PLC0415

    console.print(f"timing on this machine: {', '.join(sorted(units))}")
    with console.status("a busy machine takes longer"):
        before = os.times()
        timed = timings(config, units, facts)
        *spent, elapsed = [end - start for start, end in zip(before, os.times(), strict=True)]
    fraction = sum(spent) / elapsed
    if hardware(config).uses_gpu or fraction > BUSY:
        return timed, []
    busy = (
        f"the machine is busy: the timed work had {fraction:.0%} of a processor core. While no other program "
        f"runs, a run takes about {fraction:.0%} of these times"
    )
    return timed, [busy]


def _table(config: DictConfig, rows: Sequence[Row], timed: "Mapping[Unit, Timed] | None") -> Table:
    where = _where(config) if any(row.computes for row in rows) else ""
    shown = Table(title=f"plan of {escape(str(config.run_dir))}")
    for column in ("stage", "state", "tiles", "steps", "weights", "device, precision"):
        justify: Literal["left", "right"] = "right" if column in {"tiles", "steps"} else "left"
        shown.add_column(column, justify=justify, overflow="fold")
    if timed is not None:
        shown.add_column("estimate", justify="right")
    for row in rows:
        state, what = row.forecast.state, row.amounts
        cells = [row.title, f"[{COLOURS[state]}]{state}[/]", *map(_count, (what.tiles, what.steps))]
        weights = f"[bold red]{RANDOM}[/]" if what.weights == RANDOM else escape(what.weights)
        cells += [weights, where if row.computes else ""]
        shown.add_row(*cells, *([] if timed is None else [_estimate(row, timed)]))
    return shown


def _where(config: DictConfig) -> str:
    """Device and precision of the networks."""
    from ome.config.objects import hardware  # noqa: PLC0415 - loads torch, as the stages will
    from ome.training.hardware import decided_precision  # noqa: PLC0415

    machine = hardware(config)
    device = machine.device()
    return f"{device.type}, {decided_precision(machine.precision, device)}"


def _count(number: int | None) -> str:
    return UNKNOWN if number is None else str(number or "")


def _estimate(row: Row, timed: "Mapping[Unit, Timed]") -> str:
    if (seconds := row.seconds(timed)) is not None:
        return ("" if row.is_known else "> ") + duration(seconds)
    return "not timed" if row.is_known else UNKNOWN


def _remarks(rows: Sequence[Row]) -> Iterator[str]:
    """What has changed since the results of stages that run again; and that random weights are poor."""
    for row in rows:
        if row.forecast.changes:
            yield f"changed since the result of {row.name}: {', '.join(row.forecast.changes)}"
    if any(row.amounts.weights == RANDOM for row in rows):
        yield "random weights make poor maps: backbone=efficientnet_lite0 has ImageNet weights (ome[weights])"


def _about(rows: Sequence[Row], timed: "Mapping[Unit, Timed]", *, alone: bool) -> Iterator[str]:
    """Lines under the table: the total, what it was estimated from, and what is unknown."""
    yield from _remarks(rows)
    estimates = {row.name: row.seconds(timed) for row in rows}
    lacking = [row.name for row in rows if estimates[row.name] is None or not row.is_known]
    seconds = sum(estimate or 0 for estimate in estimates.values())
    total = duration(seconds) if seconds or not lacking else UNKNOWN
    rest = f", plus the work of {', '.join(lacking)} that is not timed or unknown"
    yield f"in all: {'at least ' * bool(lacking and seconds)}{total}" + (rest if lacking and seconds else "")
    if timed:
        of = {unit: f"of {one.number}" if one.number else "rough, of a part" for unit, one in timed.items()}
        parts = (f"{unit} {_precise(one.seconds)} ({of[unit]})" for unit, one in timed.items())
        yield f"estimated from times on this machine: {', '.join(parts)}"
    if not alone:
        yield "several processes are not timed: type trainer.strategy=auto for the times of a single one"
    for row in rows:
        for part, fault in list(row.faults.items())[:FAULTS]:
            yield f"will fail: {fault if part in fault else f'{part}: {fault}'}"
        if len(row.faults) > FAULTS:
            yield f"and {len(row.faults) - FAULTS} more"
    if not all(row.is_known for row in rows):
        yield (
            "unknown: which tiles train is known once stage=labels has read the reference masks. Type the "
            "same command with stage=all stage.until=labels in place of plan=true, then this one again"
        )
    elif any(row.name == "labels" and row.forecast.state != "up to date" for row in rows):
        yield "tiles are counted from the table of tags; those without valid pixels will be left out"


def _precise(seconds: float) -> str:
    return f"{seconds:.2g} s" if seconds < 10 else duration(seconds)
