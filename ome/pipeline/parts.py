"""Runs a stage for several parts (e.g. scenes) in one command; a failed part does not stop the others."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from omegaconf import DictConfig
from rich.markup import escape

from ome.distributed.collectives import alone, barrier, gather, is_rank_zero
from ome.distributed.turns import Turns
from ome.errors import UserError
from ome.faults import disk_fault
from ome.pipeline.artifacts import Artefact
from ome.pipeline.engine import execute
from ome.pipeline.inputs import find_inputs
from ome.pipeline.locks import InUseError
from ome.pipeline.manifest import Manifest
from ome.pipeline.stage import OnFinish, Stage
from ome.progress import console, duration

_SHOWN: Final = 20
"""Number of failures in the final message; the stage's file lists all of them."""


@dataclass(frozen=True)
class _Outcome:
    """The outcome of a part.

    Attributes:
        kind: `done` (now or before), `busy` (another command is computing it) or `failed`.
        text: Why it failed.
    """

    kind: Literal["done", "busy", "failed"]
    text: str = ""


def execute_parts(
    stage: Stage,
    config: DictConfig,
    parts: Mapping[str, DictConfig],
    *,
    force: bool = False,
    verify: bool = False,
    on_finish: OnFinish | None = None,
) -> None:
    """Runs a stage for each of several parts, which are shared out among processes and commands.

    Args:
        stage: What to run.
        config: The configuration that selects all parts.
        parts: The configuration of each part, by its name in messages.
        force: See `execute`.
        verify: See `execute`.
        on_finish: See `execute`; called by the process that ran the part.

    Raises:
        UserError: At once if a folder holds something else, an input is missing, or the disk is full. After
            the other parts are done if some have failed.
    """
    _check(stage, parts)
    names, turns, started = list(parts), Turns(len(parts)), time.monotonic()
    local: dict[str, _Outcome] = {}
    for index in turns:
        name = names[index]
        outcome, ran = _outcome(stage, parts[name], force=force, verify=verify, on_finish=on_finish)
        local[name] = outcome
        if outcome.kind == "failed":
            console.print(f"[red]failed[/] {stage.name}: {escape(_of_part(name, outcome.text))}")
        _say_progress(stage.name, turns, started, len(parts), ran=ran)
    for name in [name for name, outcome in local.items() if outcome.kind == "busy"]:
        # The other command may have finished it meanwhile: the last one to end counts all parts.
        local[name], _ = _outcome(stage, parts[name], force=False, verify=verify, on_finish=on_finish)
    outcomes = {name: outcome for of_rank in gather(local) for name, outcome in of_rank.items()}
    _conclude(stage, config, parts, {name: outcomes[name] for name in names})


def _check(stage: Stage, parts: Mapping[str, DictConfig]) -> None:
    """Checks, before the first part runs, what would fail in every part or replace a user's files."""
    first = next(iter(parts.values()))
    find_inputs(stage.name, stage.needed(first), stage.optional_inputs, first, {})
    for config in parts.values():
        try:
            place = stage.place(config)
        except UserError:
            continue  # for example, its scene is missing: only this part will fail
        place.check_finished()


def _outcome(
    stage: Stage, config: DictConfig, *, force: bool, verify: bool, on_finish: OnFinish | None
) -> tuple[_Outcome, bool]:
    """Runs one part; also returns whether it did any work."""
    try:
        with alone():
            ran = execute(stage, config, force=force, verify=verify, on_finish=on_finish)
    except InUseError:
        return _Outcome("busy"), False
    except Exception as error:  # the other parts may still succeed
        if isinstance(error, UserError) and disk_fault(error) is not None:
            raise
        text = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        return _Outcome("failed", " ".join(text.split())), True
    return _Outcome("done"), ran


def _of_part(name: str, reason: str) -> str:
    """Why a part failed, with its name once."""
    return reason if name in reason else f"{name}: {reason}"


def _say_progress(name: str, turns: Turns, started: float, total: int, *, ran: bool) -> None:
    done, worked = turns.add("done"), turns.add("worked", int(ran))
    if not worked or done >= total:
        left = ""
    else:
        seconds = (time.monotonic() - started) / worked * (total - done)
        left = f", about {duration(seconds)} left"
    console.print(f"[bold]{name}[/]: {min(done, total)} of {total}{left}")


def _conclude(
    stage: Stage, config: DictConfig, parts: Mapping[str, DictConfig], outcomes: Mapping[str, _Outcome]
) -> None:
    failed = {name: outcome.text for name, outcome in outcomes.items() if outcome.kind == "failed"}
    busy = [name for name, outcome in outcomes.items() if outcome.kind == "busy"]
    if is_rank_zero():
        if stage.conclude is not None:
            stage.conclude(config, _finished(stage, parts, outcomes), failed)
        if busy:
            console.print(
                f"[yellow]another command is computing {len(busy)} of them[/], the first is {busy[0]}: when "
                "it is done, the same command includes them",
            )
    barrier()
    if failed:
        lines = [_of_part(name, reason) for name, reason in failed.items()]
        more = [f"and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
        raise UserError(f"{len(failed)} of {len(parts)} failed", *lines[:_SHOWN], *more)


def _finished(
    stage: Stage, parts: Mapping[str, DictConfig], outcomes: Mapping[str, _Outcome]
) -> dict[str, Artefact]:
    folders: dict[str, Path] = {
        name: stage.folder(config) for name, config in parts.items() if outcomes[name].kind == "done"
    }
    manifests = {name: Manifest.read(folder) for name, folder in folders.items()}
    return {name: Artefact(folders[name], manifest) for name, manifest in manifests.items() if manifest}
