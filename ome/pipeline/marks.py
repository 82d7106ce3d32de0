"""The mark of a partial folder and the manifest of a finished one: they tell what the engine wrote."""

from pathlib import Path
from typing import Literal, NamedTuple

from ome.errors import UserError
from ome.pipeline.manifest import NAME, Manifest

PARTIAL = ".partial"
"""Ending of the name of a partial folder."""

MARK = ".fingerprint"
"""File in a partial folder with the fingerprint and the name of the artefact that it will become."""

State = Literal["up to date", "resumes", "runs"]
"""What a command would do with an artefact: nothing, resume its partial folder, or start from scratch."""


class Remains(NamedTuple):
    """Usable files of an interrupted or damaged artefact.

    Attributes:
        folder: Its folder.
        lost: Names of the files in it that will be written again.
    """

    folder: Path
    lost: frozenset[str] = frozenset()

    def has(self, name: Path | str) -> bool:
        """Whether a file, given by its path in the folder, exists and will be kept."""
        return str(name) not in self.lost and (self.folder / name).exists()


def read_mark(folder: Path) -> list[str]:
    """The lines of a partial folder's mark: fingerprint, name of the artefact, and an empty line."""
    return (folder / MARK).read_text(encoding="utf-8", errors="replace").split("\n")


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
