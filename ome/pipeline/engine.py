"""Runs a stage, unless its result is up to date.

The engine finds the inputs, decides whether the result on disk is up to date, lets the stage write into
`<folder>.partial`, and renames that folder when the stage is done. A killed stage resumes in its partial
folder if its fingerprint is still the same.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from omegaconf import DictConfig

from ome.distributed.collectives import barrier, is_rank_zero, rank_zero_value
from ome.errors import UserError
from ome.faults import disk_fault, memory_fault
from ome.pipeline.artifacts import Artefact, another_place, logs_of, note_inherited, stage_folder
from ome.pipeline.checksums import hashes_of
from ome.pipeline.config_guard import declared_config
from ome.pipeline.input_changes import unchanged
from ome.pipeline.inputs import find_inputs
from ome.pipeline.layout import NETWORK
from ome.pipeline.locks import locked
from ome.pipeline.manifest import Manifest, versions
from ome.pipeline.place import Place
from ome.pipeline.reuse import copy_files, kept_files
from ome.pipeline.stage import OnFinish, Stage, Work
from ome.pipeline.started import write_started
from ome.pipeline.task import Task, check_inputs, inherited_folder, task_of
from ome.pipeline.user_files import set_foreign_aside
from ome.progress import console, duration


def execute(
    stage: Stage,
    config: DictConfig,
    *,
    force: bool = False,
    verify: bool = False,
    folders: dict[str, Path] | None = None,
    on_finish: OnFinish | None = None,
) -> bool:
    """Runs a stage unless its result is up to date.

    Args:
        stage: What to run.
        config: The configuration with this stage's settings under `stage`.
        force: Run even when the result is up to date.
        verify: Compare the hash of every file of a result, and of every external file that it was made from,
            instead of size and time only.
        folders: Folders of the stages that this command has run so far, by name; this stage's is added.
        on_finish: Called by rank 0 when the stage has run, with its artefact and those of its inputs.

    Returns:
        True when the stage ran, False when it was up to date.

    Raises:
        UserError: An input is missing or has changed, another run is using the folder, the disk is full, or
            the stage raised it.
    """
    folders = {} if folders is None else folders
    artefacts = find_inputs(stage.name, stage.needed(config), stage.optional_inputs, config, folders)
    task = task_of(stage, config, artefacts)
    fingerprint, place, folder = task.fingerprint, task.place, task.place.folder
    with _locks(stage, config, fingerprint, folder), _machine_faults(folder):
        if is_rank_zero():
            place.check()
            found = {name: artefact for name, artefact in artefacts.items() if name not in folders}
            check_inputs(found, verify=verify)
            _note_inherited_inputs(config, found)
            place.recover()
            if not force:
                place.set_damaged_aside(fingerprint, verify=verify)
        barrier()
        finished = None if force else _finished(stage, config, fingerprint, folder, verify=verify)
        folders[stage.name] = finished or folder
        if verify and finished is not None and is_rank_zero():
            _check_outside(stage.name, finished, task.outside)
        if rank_zero_value(finished is not None):
            console.print(f"[green]up to date[/] {stage.name}: {finished}")
            if is_rank_zero() and finished is not None and finished != folder:
                note_inherited(logs_of(config, stage.name), finished, fingerprint)
            return False
        manifest = _run(stage, config, task, artefacts, fresh=force)
        if is_rank_zero() and on_finish is not None:
            on_finish(config, Artefact(folder, manifest), artefacts)
        barrier()
    return True


def _run(
    stage: Stage, config: DictConfig, task: Task, artefacts: Mapping[str, Artefact], *, fresh: bool
) -> Manifest:
    """Runs a stage in its partial folder, and renames that; returns the manifest, which rank 0 completes."""
    place, logs = task.place, logs_of(config, stage.name)
    replaces = ", to replace an earlier result" if place.folder.exists() else ""
    replaces += f" (changed: {', '.join(task.changes)})" if task.changes else ""
    console.print(f"[bold]{stage.name}[/] -> {place.folder}{replaces}")
    manifest = Manifest(stage.name, task.fingerprint, task.used, task.inputs)
    if is_rank_zero():
        place.open(task.fingerprint, fresh=fresh)
        write_started(stage, logs, manifest, task.outside)
    barrier()
    started = time.monotonic()
    with place.written(), unchanged(stage, config, task.snapshot, place):
        _keep_trainings(stage, config, place, manifest, unless=fresh)
        input_folders = {name: path for name, (path, _) in artefacts.items()}
        stage_config = declared_config(config, (*task.used, *stage.free_keys))
        counts = stage.run(Work(stage_config, place.partial, input_folders, logs, config))
        barrier()
        hashes = hashes_of(task.outside) if is_rank_zero() else []
    if is_rank_zero():
        seconds = round(time.monotonic() - started, 2)
        if stage.run.__module__.startswith("ome."):  # a plug-in may write by other means than `ome.files`
            set_foreign_aside(place.partial, place.folder)
        whole = replace(manifest, counts=counts, hashes=hashes, seconds=seconds, versions=versions())
        manifest = place.finish(lambda files: replace(whole, files=files))
        console.print(f"[green]done[/] {stage.name} in {duration(seconds)}")
    return manifest


def _note_inherited_inputs(config: DictConfig, found: Mapping[str, Artefact]) -> None:
    """Records which of the inputs that were found are those of other runs."""
    for name, (folder, manifest) in found.items():
        if folder != stage_folder(config, name):
            note_inherited(logs_of(config, name), folder, manifest.fingerprint)


def _keep_trainings(stage: Stage, config: DictConfig, place: Place, now: Manifest, *, unless: bool) -> None:
    """Copies trainings that would be the same from an earlier result into the partial folder."""
    if is_rank_zero() and not unless:
        kept = kept_files(stage, config, place.folder, now)
        if networks := [name for name in copy_files(kept, place.partial) if name.endswith(NETWORK)]:
            console.print(
                f"[green]not trained again[/], nothing that it reads has changed: {', '.join(networks)}"
            )
    barrier()


def _check_outside(name: str, folder: Path, outside: Sequence[Path]) -> None:
    """Refuses an external file whose content has changed although its size and time have not."""
    manifest = Manifest.read(folder)
    before = [] if manifest is None else manifest.hashes
    if len(before) != len(outside):  # the raw files were deleted
        console.print(
            f"[yellow]{name}: the files outside the run cannot be verified[/], no hashes are recorded"
        )
        return
    for path, then, now in zip(outside, before, hashes_of(outside), strict=True):
        if then != now:
            raise UserError(
                f"{path} has changed since stage={name} read it, although its size and time have not: "
                f"restore it, or type touch '{path}', and the same command recomputes what depends on it"
            )


def _finished(
    stage: Stage, config: DictConfig, fingerprint: str, folder: Path, *, verify: bool
) -> Path | None:
    """The folder with the result of that fingerprint, in this run or in one that it inherits from."""
    present = Manifest.read(folder)
    if present is not None and present.fingerprint == fingerprint:
        return folder
    return inherited_folder(stage, config, fingerprint, verify=verify)


@contextmanager
def _locks(stage: Stage, config: DictConfig, fingerprint: str, folder: Path) -> Iterator[None]:
    """Lets only one run work on a folder, and only one job of a sweep compute the same result.

    Waits for a lock on shared results. Does not wait for a run's own folder, where two commands may have
    different settings.
    """
    lock_file = folder.with_name(f".{folder.name}.lock")
    remedy = f"wait for it, or give this one another {another_place(stage.name)}"
    folder_lock = locked(lock_file, str(folder), wait=stage.name == "prepare", remedy=remedy)
    if not config.inherit or not stage.requires:
        with folder_lock:
            yield
        return
    # Beside the run's folder, in the folder of the sweep.
    shared = Path(config.run_dir).parent / ".locks" / f"{stage.name}_{fingerprint}"
    with locked(shared, f"the same {stage.name}", wait=True), folder_lock:
        yield


@contextmanager
def _machine_faults(folder: Path) -> Iterator[None]:
    """Turns errors of the disk and of memory into one line."""
    try:
        yield
    except Exception as error:
        if (line := disk_fault(error, folder) or memory_fault(error)) is None:
            raise
        raise UserError(line) from error
