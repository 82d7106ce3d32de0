"""A stage is a function from artefacts to artefacts; this is the frame that runs one.

The frame looks the inputs up, decides whether the result on disk still holds, lets the stage work in
`<folder>.partial`, and makes the result visible in one rename when it is whole. A stage that was killed
finds its own partial folder again, as long as it would be made from the same things.
"""

import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from omegaconf import DictConfig, OmegaConf

from ome.distributed.collectives import barrier, is_rank_zero, rank_zero_value
from ome.errors import UserError
from ome.files import no_room, remove_temporaries, write_text
from ome.pipeline.artifacts import Artefact, find_inputs, find_same, inherited_runs, plain, stage_folder
from ome.pipeline.checksums import damaged, remove_from, write_listing
from ome.pipeline.locks import locked
from ome.pipeline.manifest import NAME, Manifest, compute_fingerprint, versions
from ome.progress import console

MARK = ".fingerprint"
"""Name of the file that says of a partial folder what it is going to be."""


OnFinish: TypeAlias = Callable[[DictConfig, Artefact, Mapping[str, Artefact]], None]
"""What is told of a stage that has run: its configuration, its artefact, and those of its inputs by name."""


@dataclass(frozen=True)
class Work:
    """What a stage is given.

    Attributes:
        config: The whole configuration; `config.stage` holds this stage's settings.
        folder: Where the stage writes; it may hold the remains of an interrupted run of the same work.
        inputs: The finished folder of each stage it needs, and of those `optional_inputs` that exist.
        logs: Where loggers write; kept apart because logs differ between identical runs.
    """

    config: DictConfig
    folder: Path
    inputs: Mapping[str, Path]
    logs: Path

    @property
    def settings(self) -> DictConfig:
        """The settings of this stage."""
        settings: DictConfig = self.config.stage
        return settings


@dataclass(frozen=True)
class Stage:
    """One step of the story.

    Attributes:
        name: As in `stage=NAME`.
        run: Does the work and returns the counts for the manifest.
        requires: Earlier stages whose folders it reads, or a function that tells them from the configuration.
        optional_inputs: Earlier stages whose folders it reads where they are there.
        config_keys: Dotted configuration keys, beyond the stage's own settings, that change its result.
        external_files: Identity of files outside the run that it reads (names, sizes, times), if any.
        optional_config: More of the configuration that changes its result, where it is given, by key.
        version: Raised when a change of the code makes earlier results stale.
        enabled: Tells from the configuration whether `stage=all` runs it on the way to a later stage; None
            where it always does.
        part: Names the part of its folder that the configuration asks for, e.g. a scene: parts are made, kept
            and replaced each on its own. None for a stage that makes its folder as a whole.
    """

    name: str
    run: Callable[[Work], dict[str, Any]]
    requires: tuple[str, ...] | Callable[[DictConfig], tuple[str, ...]] = ()
    optional_inputs: tuple[str, ...] = ()
    config_keys: tuple[str, ...] = ()
    external_files: Callable[[DictConfig], list[Any]] | None = None
    optional_config: Callable[[DictConfig], dict[str, Any]] | None = None
    version: int = 1
    enabled: Callable[[DictConfig], bool] | None = None
    part: Callable[[DictConfig], str] | None = None

    def needed(self, config: DictConfig) -> tuple[str, ...]:
        """Names of the stages it needs, given the configuration with its settings under `stage`."""
        return self.requires(config) if callable(self.requires) else self.requires

    def folder(self, config: DictConfig) -> Path:
        """Where its result lies, or the part of it that the configuration asks for."""
        whole = stage_folder(config, self.name)
        return whole if self.part is None else whole / self.part(config)


def execute(
    stage: Stage,
    config: DictConfig,
    *,
    force: bool = False,
    verify: bool = False,
    made: dict[str, Path] | None = None,
    on_finish: OnFinish | None = None,
) -> bool:
    """Runs a stage unless its result is there and still holds.

    Args:
        stage: What to run.
        config: The configuration with this stage's settings under `stage`.
        force: Run even when the result holds.
        verify: Compare the hash of every file of a result with its list, not the size alone.
        made: Folders of the stages that this command has run so far, by name; this one's is added.
        on_finish: Called by rank 0 when the stage has run, with its artefact and those of its inputs.

    Returns:
        True when the stage ran, False when there was nothing to do.

    Raises:
        UserError: An input is missing, another run works in the same folder, the disk is full, or the stage
            says so.
    """
    made = {} if made is None else made
    found = find_inputs(stage.name, stage.needed(config), stage.optional_inputs, config, made)
    inputs = {name: manifest.fingerprint for name, (_, manifest) in found.items()}
    used = _used_config(stage, config)
    fingerprint = compute_fingerprint(stage.name, stage.version, used, inputs)
    folder = stage.folder(config)
    partial = folder.with_name(folder.name + ".partial")
    with _locks(stage, config, fingerprint), _room(folder):
        if is_rank_zero():
            _finish_rename(folder, partial)
            if not force:
                _set_damaged_aside(folder, partial, fingerprint, verify=verify)
        barrier()
        finished = None if force else _finished(stage, config, fingerprint)
        made[stage.name] = finished or folder
        if rank_zero_value(finished is not None):
            _say(f"[green]up to date[/] {stage.name}: {finished}")
            return False
        _say(f"[bold]{stage.name}[/] -> {folder}")
        if is_rank_zero():
            _open_partial(partial, fingerprint, fresh=force)
        barrier()
        started = time.monotonic()
        logs = Path(config.run_dir) / "logs" / stage.name
        with _tidied(partial):
            counts = stage.run(Work(config, partial, {name: path for name, (path, _) in found.items()}, logs))
        barrier()
        if is_rank_zero():
            seconds, files = round(time.monotonic() - started, 2), write_listing(partial)
            manifest = Manifest(stage.name, fingerprint, used, inputs, counts, files, seconds, versions())
            manifest.write(partial)
            _finish_rename(folder, partial)
            _say(f"[green]done[/] {stage.name} in {seconds:.1f} s")
            if on_finish is not None:
                on_finish(config, Artefact(folder, manifest), found)
        barrier()
    return True


def _finished(stage: Stage, config: DictConfig, fingerprint: str) -> Path | None:
    """The folder that holds the result of that fingerprint: this run's, or that of a run it inherits from."""
    folder = stage.folder(config)
    present = Manifest.read(folder)
    if present is not None and present.fingerprint == fingerprint:
        return folder
    if stage.name == "prepare" or stage.part is not None:
        return None
    same = find_same(inherited_runs(config), stage.name, fingerprint)
    whole = same is not None and (
        same.manifest.files is None or damaged(same.folder, same.manifest.files, verify=False) == []
    )
    return same.folder if same and whole else None


@contextmanager
def _locks(stage: Stage, config: DictConfig, fingerprint: str) -> Iterator[None]:
    """Lets one run at a time work on a folder, and one job of a sweep at a time make the same result.

    What runs share is waited for. A run's own folder is not: two commands there may want different things.
    """
    folder = stage.folder(config)
    own = locked(folder.with_name(f".{folder.name}.lock"), str(folder), wait=stage.name == "prepare")
    if not config.inherit or not stage.requires:
        with own:
            yield
        return
    # Beside the run's folder, where the jobs of a sweep lie.
    shared = Path(config.run_dir).parent / ".locks" / f"{stage.name}_{fingerprint}"
    with locked(shared, f"the same {stage.name}", wait=True), own:
        yield


def _used_config(stage: Stage, config: DictConfig) -> dict[str, Any]:
    used: dict[str, Any] = {"stage": OmegaConf.to_container(config.stage, resolve=True)}
    used |= {key: plain(config, key) for key in stage.config_keys}
    if stage.optional_config is not None:
        used |= stage.optional_config(config)
    if stage.external_files is not None:
        used["sources"] = stage.external_files(config)
    return used


def _set_damaged_aside(folder: Path, partial: Path, fingerprint: str, *, verify: bool) -> None:
    """Makes a result with damaged files a partial one again, without them and what came after them."""
    present = Manifest.read(folder)
    if present is None or present.fingerprint != fingerprint or present.files is None:
        return
    wrong = damaged(folder, present.files, verify=verify)
    if wrong == []:
        return
    shutil.rmtree(partial, ignore_errors=True)
    folder.rename(partial)
    if wrong is None:
        (partial / NAME).unlink()
        _say(f"[yellow]{folder}: its list of files is damaged, everything in it is made again[/]")
        return
    kept = remove_from(partial, wrong[0])
    write_text(partial / MARK, fingerprint)
    (partial / NAME).unlink()  # last: until then it is taken for whole, and found to be damaged again
    _say(
        f"[yellow]{folder}: {len(wrong)} of {present.files} files are missing or not as they were written, "
        f"the first is {wrong[0]}; {present.files - kept} are made again[/]"
    )


@contextmanager
def _room(folder: Path) -> Iterator[None]:
    """Says in one line that a file could not be written for want of room."""
    try:
        yield
    except Exception as error:
        if (reason := no_room(error)) is None:
            raise
        raise UserError(
            f"cannot write to {folder} ({reason}): free some space; the same command resumes where it stopped"
        ) from error


@contextmanager
def _tidied(partial: Path) -> Iterator[None]:
    """Leaves no empty folder behind where a stage failed before it wrote anything."""
    try:
        yield
    except BaseException:
        if is_rank_zero() and [path.name for path in partial.iterdir()] == [MARK]:
            shutil.rmtree(partial, ignore_errors=True)
        raise


def _open_partial(partial: Path, fingerprint: str, *, fresh: bool) -> None:
    """Keeps the partial folder of the same work; removes one that belongs to other work."""
    mark = partial / MARK
    if fresh or not mark.exists() or mark.read_text(encoding="utf-8") != fingerprint:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        write_text(mark, fingerprint)
    remove_temporaries(partial)


def _finish_rename(folder: Path, partial: Path) -> None:
    """Puts a whole partial folder in its place; safe to repeat after a kill at any point."""
    if not (partial / NAME).exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    (partial / MARK).unlink(missing_ok=True)
    partial.rename(folder)


def _say(line: str) -> None:
    if is_rank_zero():
        console.print(line, highlight=False)
