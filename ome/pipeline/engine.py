"""Runs a stage, or foresees what that would do.

The engine looks the inputs up, decides whether the result on disk still holds, lets the stage work in
`<folder>.partial`, and makes the result visible in one rename when it is whole. A stage that was killed
finds its own partial folder again, as long as it would be made from the same things.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig

from ome.distributed.collectives import barrier, is_rank_zero, rank_zero_value
from ome.errors import UserError
from ome.files import disk_fault, memory_fault, write_json
from ome.pipeline.artifacts import INHERITED, Artefact, find_same, inherited_runs, whole_paths
from ome.pipeline.checksums import NAME as LISTING
from ome.pipeline.checksums import damaged, hashes_of
from ome.pipeline.declared import declared_config
from ome.pipeline.inputs import find_inputs
from ome.pipeline.locks import locked
from ome.pipeline.manifest import Manifest, compute_fingerprint, recorded, versions
from ome.pipeline.place import Place, Remains, State, read_if_whole
from ome.pipeline.stage import OnFinish, Stage, Work, used_config
from ome.progress import console


def execute(
    stage: Stage,
    config: DictConfig,
    *,
    force: bool = False,
    verify: bool = False,
    folders: dict[str, Path] | None = None,
    on_finish: OnFinish | None = None,
) -> bool:
    """Runs a stage unless its result is there and still holds.

    Args:
        stage: What to run.
        config: The configuration with this stage's settings under `stage`.
        force: Run even when the result holds.
        verify: Compare the hash of every file of a result, and of every file outside the run that it was made
            from, not the size (and time) alone.
        folders: Folders of the stages that this command has run so far, by name; this one's is added.
        on_finish: Called by rank 0 when the stage has run, with its artefact and those of its inputs.

    Returns:
        True when the stage ran, False when there was nothing to do.

    Raises:
        UserError: An input is missing, or changed; another run works in the same folder, the disk is full,
            or the stage says so.
    """
    folders = {} if folders is None else folders
    artefacts = find_inputs(stage.name, stage.needed(config), stage.optional_inputs, config, folders)
    used, inputs, outside, fingerprint, place = _task(stage, config, artefacts)
    folder, logs = place.folder, Path(config.run_dir) / "logs" / stage.name
    with _locks(stage, config, fingerprint, folder), _machine_faults(folder):
        if is_rank_zero():
            place.check()
            _check_inputs(
                {name: one for name, one in artefacts.items() if name not in folders}, verify=verify
            )
            place.recover()
            if not force:
                place.set_damaged_aside(fingerprint, verify=verify)
        barrier()
        finished = None if force else _finished(stage, config, fingerprint, folder, verify=verify)
        folders[stage.name] = finished or folder
        if verify and finished is not None and is_rank_zero():
            _check_outside(stage.name, finished, outside)
        if rank_zero_value(finished is not None):
            _say(f"[green]up to date[/] {stage.name}: {finished}")
            if is_rank_zero() and finished not in {None, folder}:
                write_json(logs / INHERITED, {"folder": str(finished), "fingerprint": fingerprint})
            return False
        _say(f"[bold]{stage.name}[/] -> {folder}")
        if is_rank_zero():
            place.open(fingerprint, fresh=force)
        barrier()
        started = time.monotonic()
        with place.tidied():
            read = {name: path for name, (path, _) in artefacts.items()}
            own_config = declared_config(config, (*used, *stage.free_keys))
            counts = stage.run(Work(own_config, place.partial, read, logs, config))
        barrier()
        if is_rank_zero():
            seconds = round(time.monotonic() - started, 2)
            manifest = place.finish(
                lambda files: Manifest(
                    stage.name,
                    fingerprint,
                    used,
                    inputs,
                    counts,
                    files,
                    hashes_of(outside),
                    seconds,
                    versions(),
                )
            )
            _say(f"[green]done[/] {stage.name} in {seconds:.1f} s")
            if on_finish is not None:
                on_finish(config, Artefact(folder, manifest), artefacts)
        barrier()
    return True


class Prospect(NamedTuple):
    """What `execute` would do with a stage.

    Attributes:
        state: `up to date` costs nothing; `resumes` goes on in the partial folder; `runs` starts anew.
        artefact: Where the result lies or will, and the part of its manifest that is known before.
        remains: What is there of a result that resumes.
        inputs: What the stage reads.
    """

    state: State
    artefact: Artefact
    remains: Remains | None
    inputs: Mapping[str, Artefact]


def foresee(
    stage: Stage,
    config: DictConfig,
    planned: Mapping[str, Artefact],
    *,
    force: bool = False,
    verify: bool = False,
) -> Prospect:
    """Tells what `execute` would do with the same arguments; writes and prints nothing.

    A fingerprint depends on settings and other fingerprints, so that it is known before the inputs are made.

    Args:
        stage: The stage.
        config: The configuration with this stage's settings under `stage`.
        planned: The artefacts of the prospects of the stages before it in the same command, by name.
        force: See `execute`.
        verify: See `execute`.

    Raises:
        UserError: See `execute`.
    """
    artefacts = find_inputs(stage.name, stage.needed(config), stage.optional_inputs, config, {}, planned)
    task = _task(stage, config, artefacts)
    folder = task.place.folder
    task.place.check_finished()
    _check_inputs({name: one for name, one in artefacts.items() if name not in planned}, verify=verify)
    state: State = "runs"
    remains = inherited = None
    if not force:
        state, remains = task.place.foresee(task.fingerprint, verify=verify)
        if state != "up to date":
            inherited = _inherited(stage, config, task.fingerprint, verify=verify)
        if inherited is not None:
            state, remains, folder = "up to date", None, inherited
    manifest = Manifest(stage.name, task.fingerprint, task.used, task.inputs)
    return Prospect(state, Artefact(folder, manifest), remains, artefacts)


class _Task(NamedTuple):
    """What a stage's result depends on, and where it goes; the fields are those of its manifest."""

    used: dict[str, Any]
    inputs: dict[str, str]
    outside: list[Path]
    fingerprint: str
    place: Place


def _task(stage: Stage, config: DictConfig, artefacts: Mapping[str, Artefact]) -> _Task:
    inputs = {name: manifest.fingerprint for name, (_, manifest) in artefacts.items()}
    with recorded() as outside:
        used = used_config(stage, config)
    place = stage.place(config, used)
    present = read_if_whole(place.folder)
    if present is not None:
        held = {key: whole_paths(value, key, present.config.get(key)) for key, value in used.items()}
        if present.fingerprint == compute_fingerprint(stage.name, stage.version, held, inputs):
            return _Task(held, inputs, outside, present.fingerprint, place)
    used = {key: whole_paths(value, key) for key, value in used.items()}
    fingerprint = compute_fingerprint(stage.name, stage.version, used, inputs)
    return _Task(used, inputs, outside, fingerprint, place)


def _check_inputs(artefacts: Mapping[str, Artefact], *, verify: bool) -> None:
    """Refuses what was changed since the stage that wrote it was done."""
    for name, (folder, manifest) in artefacts.items():
        wrong = [] if manifest.files is None else damaged(folder, manifest.files, verify=verify)
        if wrong != []:
            file = folder / (wrong[0] if wrong else LISTING)
            raise UserError(
                f"{file} has changed since stage={name} wrote it: type stage={name} verify=true to redo it"
            )


def _check_outside(name: str, folder: Path, outside: Sequence[Path]) -> None:
    """Refuses a file outside the run whose content was changed while its size and time stayed."""
    manifest = Manifest.read(folder)
    before = [] if manifest is None else manifest.hashes
    if len(before) != len(outside):  # the raw files are gone, or an earlier version recorded none
        _say(f"[yellow]{name}: the files outside the run cannot be verified[/], they have no recorded hashes")
        return
    for path, then, now in zip(outside, before, hashes_of(outside), strict=True):
        if then != now:
            raise UserError(
                f"{path} has changed since stage={name} read it, though its size and time have not: restore "
                f"it, or type touch '{path}', and the same command makes what depends on it again"
            )


def _finished(
    stage: Stage, config: DictConfig, fingerprint: str, folder: Path, *, verify: bool
) -> Path | None:
    """The folder that holds the result of that fingerprint: this run's, or that of a run it inherits from."""
    present = Manifest.read(folder)
    if present is not None and present.fingerprint == fingerprint:
        return folder
    return _inherited(stage, config, fingerprint, verify=verify)


def _inherited(stage: Stage, config: DictConfig, fingerprint: str, *, verify: bool) -> Path | None:
    if stage.name == "prepare" or stage.part is not None:
        return None
    same = find_same(inherited_runs(config), stage.name, fingerprint)
    whole = same is not None and (
        same.manifest.files is None or damaged(same.folder, same.manifest.files, verify=verify) == []
    )
    return same.folder if same and whole else None


@contextmanager
def _locks(stage: Stage, config: DictConfig, fingerprint: str, folder: Path) -> Iterator[None]:
    """Lets one run at a time work on a folder, and one job of a sweep at a time make the same result.

    What runs share is waited for. A run's own folder is not: two commands there may want different things.
    """
    own_config = locked(folder.with_name(f".{folder.name}.lock"), str(folder), wait=stage.name == "prepare")
    if not config.inherit or not stage.requires:
        with own_config:
            yield
        return
    # Beside the run's folder, where the jobs of a sweep lie.
    shared = Path(config.run_dir).parent / ".locks" / f"{stage.name}_{fingerprint}"
    with locked(shared, f"the same {stage.name}", wait=True), own_config:
        yield


@contextmanager
def _machine_faults(folder: Path) -> Iterator[None]:
    """Says in one line that a file could not be written, or that memory did not suffice."""
    try:
        yield
    except Exception as error:
        if (line := disk_fault(error, folder) or memory_fault(error)) is None:
            raise
        raise UserError(line) from error


def _say(line: str) -> None:
    if is_rank_zero():
        console.print(line, highlight=False)
