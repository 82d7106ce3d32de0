"""Where an artefact lies: the one module that deletes and replaces, and only what the engine made itself.

A finished folder carries a manifest, one in the making a mark. What carries neither, or that of another
artefact, belongs to somebody else: it is refused by name before any work begins.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

from ome.distributed.collectives import is_rank_zero
from ome.errors import UserError
from ome.files import remove_temporaries, sync, write_text
from ome.pipeline.checksums import damaged, remove_from, split_at, unlisted, write_listing
from ome.pipeline.manifest import NAME, Manifest
from ome.pipeline.remains import remove_broken
from ome.progress import console

MARK = ".fingerprint"
"""Name of the file that says of a partial folder what it is going to be: its fingerprint and artefact."""

PARTIAL = ".partial"

State = Literal["up to date", "resumes", "runs"]
"""What a command would do with an artefact: nothing, finish its partial folder, or make it from the start."""


class Remains(NamedTuple):
    """What an interrupted or damaged artefact keeps.

    Attributes:
        folder: Where it lies.
        lost: Names of the files in it that will be made again.
    """

    folder: Path
    lost: frozenset[str] = frozenset()

    def has(self, name: Path | str) -> bool:
        """Whether a file, named by its path in the folder, is there and stays."""
        return str(name) not in self.lost and (self.folder / name).exists()


class Place:
    """The folder of one artefact, and the partial folder in which it is made.

    Args:
        folder: Where the finished artefact lies, or will.
        artefact: What it is, e.g. `predict of /data/city.tif`.
        artefact_of: Tells the same from a manifest.

    Raises:
        UserError: The folder is the root of the disk, or called like a partial folder.
    """

    def __init__(self, folder: Path, artefact: str, artefact_of: Callable[[Manifest], str]) -> None:
        # Of a link the folder that it leads to; `.` and `..` have no name to put `.partial` after.
        if folder.is_symlink() or folder.name in {"", ".."}:
            folder = folder.resolve()
        if not folder.name or folder.name.lower().endswith(PARTIAL):
            raise UserError(f"{folder} cannot be the folder of {artefact}: give it another name")
        self.folder, self.artefact = folder, artefact
        self.partial = folder.with_name(folder.name + PARTIAL)
        self._artefact_of = artefact_of

    def check(self) -> None:
        """Looks at what would be replaced.

        Raises:
            UserError: Something is there that is not this artefact.
        """
        self.check_finished()
        self._check(self.partial)

    def check_finished(self) -> None:
        """As `check`, but for the partial folder, which another process may be working in."""
        self._check(self.folder)

    def _check(self, path: Path) -> None:
        # A kill between the making of the folder and that of its mark may leave the mark's temporary file.
        if not path.exists() or (
            path.is_dir() and all(entry.name.startswith(f".{MARK}.") for entry in path.iterdir())
        ):
            return
        held = self._held(path)
        if held == self.artefact:
            return
        what = f"holds {held}" if held else "was not made by ome and is not empty"
        key = "scenes" if self.artefact.startswith("prepare") else "run_dir"
        raise UserError(
            f"{path} {what}, and {self.artefact} would replace it: move it away, or choose another {key}=..."
        )

    def _held(self, path: Path) -> str | None:
        """The artefact that a folder holds, or is going to; None where it is none of the engine's."""
        if (manifest := read_if_whole(path)) is not None:
            return self._artefact_of(manifest)
        try:
            lines = _read_mark(path)
        except OSError:
            return None
        # A mark without its second line is that of an earlier version, or cut short.
        return lines[1] if len(lines) > 2 else self.artefact

    def _check_files(self) -> None:
        """Refuses to replace what a person has put among the files of an artefact."""
        present = read_if_whole(self.folder)
        if present is None or present.files is None:
            return
        others = unlisted(self.folder, present.files)
        if others:
            raise UserError(
                f"{self.folder} holds files that ome did not write, the first is {others[0]}, and would be "
                "replaced: move them away"
            )

    def recover(self) -> None:
        """Puts a partial folder that is whole in its place; safe to repeat after a kill at any point.

        One that lost files to a power cut, or was found to be damaged, is partial again, without them and
        what was written after them.
        """
        if not (self.partial / NAME).exists():
            return
        manifest, wrong = read_if_whole(self.partial), None
        if manifest is not None:
            files = manifest.files
            wrong = [] if files is None else damaged(self.partial, files, verify=True)
            if wrong == []:
                self._replace()
                return
        if manifest is None or wrong is None:
            self._write_mark("")
            console.print(
                f"[yellow]{self.folder}: its list of files is damaged, everything in it is made again[/]",
                highlight=False,
            )
        else:
            kept = remove_from(self.partial, wrong[0])
            self._write_mark(manifest.fingerprint)
            console.print(
                f"[yellow]{self.folder}: {len(wrong)} of {manifest.files} files are missing or not as they "
                f"were written, the first is {wrong[0]}; {(manifest.files or 0) - kept} are made again[/]",
                highlight=False,
            )
        (self.partial / NAME).unlink()  # last: until then it is looked at again

    def set_damaged_aside(self, fingerprint: str, *, verify: bool) -> None:
        """Makes a result with damaged files a partial one again."""
        present = Manifest.read(self.folder)
        if present is None or present.fingerprint != fingerprint or present.files is None:
            return
        if damaged(self.folder, present.files, verify=verify) != []:
            self._check_files()
            self._clear(self.partial)
            self.folder.rename(self.partial)
            self.recover()

    def foresee(self, fingerprint: str, *, verify: bool) -> tuple[State, Remains | None]:
        """What `recover`, `set_damaged_aside` and `open` would leave, told without touching it."""
        for folder, hashed in ((self.partial, True), (self.folder, verify)):
            manifest = read_if_whole(folder)
            of_this = manifest is not None and manifest.fingerprint == fingerprint
            if manifest is None or not (of_this or folder == self.partial):
                continue
            wrong = [] if manifest.files is None else damaged(folder, manifest.files, verify=hashed)
            if wrong == []:
                return ("up to date" if of_this else "runs"), None
            if of_this and wrong is not None:
                return "resumes", Remains(folder, frozenset(split_at(folder, wrong[0])[1]))
            if of_this and folder == self.folder:
                return "runs", None
        unfinished = (self.partial / MARK).exists() and not (self.partial / NAME).exists()
        if unfinished and _read_mark(self.partial)[0] == fingerprint:
            return "resumes", Remains(self.partial)
        return "runs", None

    def open(self, fingerprint: str, *, fresh: bool) -> None:
        """Keeps the whole files of a partial folder of the same work; removes one that belongs to other work.

        Raises:
            UserError: The finished folder, which will be replaced, holds files that the engine did not write.
        """
        self._check_files()
        if fresh or not (self.partial / MARK).exists() or _read_mark(self.partial)[0] != fingerprint:
            self._clear(self.partial)
            self.partial.mkdir(parents=True)
            self._write_mark(fingerprint)
        remove_temporaries(self.partial)
        if broken := remove_broken(self.partial):
            console.print(
                f"[yellow]{self.partial}: {broken} was cut short; it and what was written after it are made "
                "again[/]",
                highlight=False,
            )

    def finish(self, manifest_of: Callable[[int], Manifest]) -> Manifest:
        """Lists the files, writes the manifest with their number, and moves the folder to its place."""
        manifest = manifest_of(write_listing(self.partial))
        manifest.write(self.partial)
        sync(self.partial)
        self._replace()
        return manifest

    @contextmanager
    def tidied(self) -> Iterator[None]:
        """Leaves no empty folder behind where a stage failed before it wrote anything."""
        try:
            yield
        except BaseException:
            if is_rank_zero() and [path.name for path in self.partial.iterdir()] == [MARK]:
                self._clear(self.partial)
            raise

    def _write_mark(self, fingerprint: str) -> None:
        write_text(self.partial / MARK, f"{fingerprint}\n{self.artefact}\n")

    def _replace(self) -> None:
        self._clear(self.folder)
        (self.partial / MARK).unlink(missing_ok=True)
        self.partial.rename(self.folder)
        sync(self.folder.parent)

    def _clear(self, path: Path) -> None:
        """Removes a folder, last of all what says whose it is: the rest can be removed after a kill."""
        self._check(path)
        if not path.exists():
            return
        for entry in sorted(path.iterdir(), key=lambda entry: entry.name in {MARK, NAME}):
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
        if path.is_symlink():
            path.unlink()
        else:
            path.rmdir()


def _read_mark(folder: Path) -> list[str]:
    return (folder / MARK).read_text(encoding="utf-8", errors="replace").split("\n")


def read_if_whole(folder: Path) -> Manifest | None:
    """The manifest of a folder; None as well where the file is damaged, or another program's."""
    try:
        return Manifest.read(folder)
    except (UserError, OSError):
        return None
