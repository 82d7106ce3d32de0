"""The mark of a partial folder and the manifest of a finished one: they tell what the engine wrote."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Literal, NamedTuple

from ome.errors import UserError
from ome.files import NOTING, write_text
from ome.pipeline.checksums import has_listing
from ome.pipeline.manifest import NAME, Manifest

PARTIAL = ".partial"
"""Ending of the name of a partial folder."""

MARK = ".fingerprint"
"""File in a partial folder with the fingerprint and the name of the artefact that it will become.

Below stand `WRITTEN` and the names of the files and folders that the engine has written there.
"""

WRITTEN: Final = "written:"

State = Literal["up to date", "resumes", "runs"]
"""What a command would do with an artefact: nothing, resume its partial folder, or start from scratch."""


class PartialResult(NamedTuple):
    """Usable files of an interrupted, damaged or earlier artefact.

    Attributes:
        folder: Its folder.
        lost: Names of the files in it that will be written again.
        only: Names of the files that will be kept; None for all others.
    """

    folder: Path
    lost: frozenset[str] = frozenset()
    only: frozenset[str] | None = None

    def has(self, name: Path | str) -> bool:
        """Whether a file, given by its path in the folder, exists and will be kept."""
        is_kept = str(name) not in self.lost and (self.only is None or str(name) in self.only)
        return is_kept and (self.folder / name).exists()


def read_mark(folder: Path) -> list[str]:
    """The lines of a partial folder's mark: fingerprint, name of the artefact, what was written, and ''."""
    return (folder / MARK).read_text(encoding="utf-8", errors="replace").split("\n")


def record_in(folder: Path) -> Manifest | str | None:
    """The manifest of a folder, else the artefact that its mark names; None if the engine did not write it.

    A mark that was truncated, or written by an earlier version, names none: its artefact is empty.

    Raises:
        DamagedError: There is a list of files, but neither a mark nor a manifest that can be read.
    """
    if (manifest := read_if_whole(folder)) is not None:
        return manifest
    try:
        lines = read_mark(folder)
    except OSError:
        # Another program's manifest has no such list beside it.
        return Manifest.read(folder) if has_listing(folder) else None
    return lines[1] if len(lines) > 2 else ""


def write_mark(folder: Path, artefact: str, fingerprint: str, written: Sequence[str] | None) -> None:
    """Writes the mark of a partial folder.

    Args:
        folder: The partial folder.
        artefact: Name of the artefact.
        fingerprint: Its fingerprint; empty where no command may resume it.
        written: What the engine has written there so far; None if that is not known.
    """
    lines = [fingerprint, artefact, *([] if written is None else [WRITTEN, *written]), ""]
    write_text(folder / MARK, "\n".join(lines))


def written_in(folder: Path) -> list[str] | None:
    """What the engine has written into a partial folder; None if an older mark does not say."""
    lines = read_mark(folder) if (folder / MARK).exists() else []
    return lines[3:-1] if lines[2:3] == [WRITTEN] else None


@contextmanager
def writes_noted(folder: Path) -> Iterator[None]:
    """Adds the name of each file that is written into a partial folder to its mark, while the block runs."""
    names: set[str] = {MARK}

    def note(path: Path) -> None:
        if not path.is_relative_to(folder) or (name := str(path.relative_to(folder))) in names:
            return
        names.add(name)
        with suppress(FileNotFoundError):  # the mark was deleted, so nothing is known to be of somebody else
            mark = os.open(folder / MARK, os.O_WRONLY | os.O_APPEND)
            try:
                os.write(mark, os.fsencode(name) + b"\n")  # in one call, as other processes do it too
            finally:
                os.close(mark)

    NOTING.append(note)
    try:
        yield
    finally:
        NOTING.remove(note)


def artefacts_in(run: Path) -> tuple[list[str], list[str]]:
    """Names of the finished and of the unfinished artefacts in the folder of a run, sorted."""
    finished = sorted(path.parent.name for path in run.glob(f"*/{NAME}"))
    return finished, sorted(path.parent.stem for path in run.glob(f"*{PARTIAL}/{MARK}"))


def read_if_whole(folder: Path) -> Manifest | None:
    """The manifest of a folder; None where there is none, or it is damaged or of another program."""
    try:
        return Manifest.read(folder)
    except (UserError, OSError):
        return None
