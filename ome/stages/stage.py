"""A stage is a function from artefacts to artefacts; this is the frame that runs one.

The frame looks the inputs up, decides whether the result on disk still holds, lets the stage work in
`<folder>.partial`, and makes the result visible in one rename when it is whole. A stage that was killed
finds its own partial folder again, as long as it would be made from the same things.
"""

import fcntl
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ome.errors import UserError
from ome.files import no_room, write_text
from ome.progress import console
from ome.stages.listing import damaged, remove_from, write_listing
from ome.stages.manifest import NAME, Manifest, fingerprint, versions
from ome.training.distributed import as_leader_sees, barrier, is_leader

MARK = ".fingerprint"
"""Name of the file that says of a partial folder what it is going to be."""


@dataclass(frozen=True)
class Work:
    """What a stage is given.

    Attributes:
        config: The whole configuration; `config.stage` holds this stage's settings.
        folder: Where the stage writes; it may hold the remains of an interrupted run of the same work.
        inputs: The finished folder of each stage it needs, and of those in `Stage.uses` that exist.
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
        needs: Earlier stages whose folders it reads, or a function that tells them from the configuration.
        uses: Earlier stages whose folders it reads where they are there.
        reads: Dotted configuration keys, beyond the stage's own settings, that change its result.
        sources: Identity of files outside the run that it reads (names, sizes, times), if any.
        version: Raised when a change of the code makes earlier results stale.
        wanted: Tells from the configuration whether `stage=all` runs it on the way to a later stage; None
            where it always does.
    """

    name: str
    run: Callable[[Work], dict[str, Any]]
    needs: tuple[str, ...] | Callable[[DictConfig], tuple[str, ...]] = ()
    uses: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    sources: Callable[[DictConfig], list[Any]] | None = None
    version: int = 1
    wanted: Callable[[DictConfig], bool] | None = None

    def needed(self, config: DictConfig) -> tuple[str, ...]:
        """Names of the stages it needs, given the configuration with its settings under `stage`."""
        return self.needs(config) if callable(self.needs) else self.needs


def stage_folder(config: DictConfig, name: str) -> Path:
    """The folder of a stage: prepared scenes are shared between runs, all else belongs to one run."""
    return Path(config.scenes) if name == "prepare" else Path(config.run_dir) / name


def find_inputs(stage: Stage, config: DictConfig) -> dict[str, tuple[Path, Manifest]]:
    """Finds the finished folders of earlier stages, in this run or in the run it inherits from.

    Raises:
        UserError: A needed one is in neither; the line names the command that makes it.
    """
    found = {}
    needed = stage.needed(config)
    for name in (*needed, *stage.uses):
        folders = [stage_folder(config, name)]
        if config.inherit and name != "prepare":
            folders.append(Path(config.inherit) / name)
        whole = [(folder, manifest) for folder in folders if (manifest := Manifest.read(folder))]
        if whole:
            found[name] = whole[0]
        elif name in needed:
            raise UserError(
                f"stage={stage.name} needs the result of stage={name}, which is not in {folders[0]}: "
                f"run python -m ome.run stage={name} dataset={config.dataset.name} first, or stage=all"
            )
    return found


def execute(stage: Stage, config: DictConfig, *, force: bool = False, verify: bool = False) -> bool:
    """Runs a stage unless its result is there and still holds.

    Args:
        stage: What to run.
        config: The configuration with this stage's settings under `stage`.
        force: Run even when the result holds.
        verify: Compare the hash of every file of a result with its list, not the size alone.

    Returns:
        True when the stage ran, False when there was nothing to do.

    Raises:
        UserError: An input is missing, another run works in the same folder, the disk is full, or the stage
            says so.
    """
    found = find_inputs(stage, config)
    inputs = {name: manifest.fingerprint for name, (_, manifest) in found.items()}
    used = _used_config(stage, config)
    wanted = fingerprint(stage.name, stage.version, used, inputs)
    folder = stage_folder(config, stage.name)
    partial = folder.with_name(folder.name + ".partial")
    with _lock(folder), _room(folder):
        holds = False
        if is_leader():
            _finish_rename(folder, partial)
            holds = not force and _holds(folder, partial, wanted, verify=verify)
        if as_leader_sees(holds):
            _say(f"[green]up to date[/] {stage.name}: {folder}")
            return False
        _say(f"[bold]{stage.name}[/] -> {folder}")
        if is_leader():
            _open_partial(partial, wanted, fresh=force)
        barrier()
        started = time.monotonic()
        logs = Path(config.run_dir) / "logs" / stage.name
        with _tidied(partial):
            counts = stage.run(Work(config, partial, {name: path for name, (path, _) in found.items()}, logs))
        barrier()
        if is_leader():
            seconds, files = round(time.monotonic() - started, 2), write_listing(partial)
            Manifest(stage.name, wanted, used, inputs, counts, files, seconds, versions()).write(partial)
            _finish_rename(folder, partial)
            _say(f"[green]done[/] {stage.name} in {seconds:.1f} s")
        barrier()
    return True


def _used_config(stage: Stage, config: DictConfig) -> dict[str, Any]:
    used: dict[str, Any] = {"stage": OmegaConf.to_container(config.stage, resolve=True)}
    for key in stage.reads:
        value = OmegaConf.select(config, key)
        used[key] = OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
    if stage.sources is not None:
        used["sources"] = stage.sources(config)
    return used


def _holds(folder: Path, partial: Path, wanted: str, *, verify: bool) -> bool:
    """Whether the result is there, was made from the same things, and all its files are as they were written.

    A result with damaged files becomes a partial one again, without them and what came after them.
    """
    present = Manifest.read(folder)
    if present is None or present.fingerprint != wanted:
        return False
    if present.files is None or (wrong := damaged(folder, present.files, verify=verify)) == []:
        return True
    shutil.rmtree(partial, ignore_errors=True)
    if wrong is None:
        _say(f"[yellow]{folder}: its list of files is damaged, everything in it is made again[/]")
        return False
    folder.rename(partial)
    kept = remove_from(partial, wrong[0])
    write_text(partial / MARK, wanted)
    (partial / NAME).unlink()  # last: until then it is taken for whole, and found to be damaged again
    _say(
        f"[yellow]{folder}: {len(wrong)} of {present.files} files are missing or not as they were written, "
        f"the first is {wrong[0]}; {present.files - kept} are made again[/]"
    )
    return False


@contextmanager
def _room(folder: Path) -> Iterator[None]:
    """Says in one line that a file could not be written for want of room."""
    try:
        yield
    except Exception as error:
        if (reason := no_room(error)) is None:
            raise
        raise UserError(
            f"cannot write to {folder} ({reason}): make room, or mend the disk; the same command goes on "
            "where it stopped"
        ) from error


@contextmanager
def _tidied(partial: Path) -> Iterator[None]:
    """Leaves no empty folder behind where a stage failed before it wrote anything."""
    try:
        yield
    except BaseException:
        if is_leader() and [path.name for path in partial.iterdir()] == [MARK]:
            shutil.rmtree(partial, ignore_errors=True)
        raise


def _open_partial(partial: Path, wanted: str, *, fresh: bool) -> None:
    """Keeps the partial folder of the same work; removes one that belongs to other work."""
    mark = partial / MARK
    if fresh or not mark.exists() or mark.read_text(encoding="utf-8") != wanted:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        write_text(mark, wanted)


def _finish_rename(folder: Path, partial: Path) -> None:
    """Puts a whole partial folder in its place; safe to repeat after a kill at any point."""
    if not (partial / NAME).exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    (partial / MARK).unlink(missing_ok=True)
    partial.rename(folder)


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Lets one run at a time work on a folder; the lock goes when the process does, however it ends."""
    if not is_leader():
        yield
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    path = folder.with_name(f".{folder.name}.lock")
    with path.open("w", encoding="utf-8") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(
                f"another run is working on {folder}: wait for it, or give this one its own name=..."
            ) from error
        yield


def _say(line: str) -> None:
    if is_leader():
        console.print(line, highlight=False)
