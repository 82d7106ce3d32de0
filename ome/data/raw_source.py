"""Where a dataset keeps its files, and what they are called."""

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Final

from ome.data.names import normal_form

IMAGE_SUFFIXES: Final = (".tif", ".tiff", ".png", ".jpg", ".jpeg")
"""What `.*` at the end of a pattern stands for, in small or capital letters."""


@dataclass(frozen=True)
class RawSource:
    """Where a dataset keeps one kind of files.

    Attributes:
        pattern: Name of a scene's file with `{scene}` in it, e.g. `top_potsdam_{scene}_IRRG.tif`, or
            `{scene}.*` for images of every kind. Folders before it count for loose files, and in an archive
            where a file of that name lies in several: there it is found in whatever folder it lies. A `*`
            among them is a folder of any name, and then they always count.
        archive: Name of the zip archive, or of several, which are all needed; None for files that are
            distributed loose.
        channels: Bands (1-based) to read as the image by default; empty for all that show something.
        excluded: Pattern of names of other files, which `pattern` matches too, e.g. `*_label.png`.
    """

    pattern: str
    archive: str | tuple[str, ...] | None = None
    channels: tuple[int, ...] = (1, 2, 3)
    excluded: str | None = None

    @property
    def archives(self) -> tuple[str, ...]:
        """Names of the zip archives."""
        return (self.archive,) if isinstance(self.archive, str) else self.archive or ()

    @property
    def folder(self) -> PurePosixPath:
        """The folders of the pattern."""
        return PurePosixPath(self.pattern).parent

    def file_name(self, scene: str) -> str:
        """Name of a scene's file, without folders."""
        return PurePosixPath(self.pattern).name.replace("{scene}", scene)

    def scene_of(self, file_name: str) -> str | None:
        """The scene that a file name belongs to; None when it does not match the pattern."""
        if self.excluded is not None and fnmatchcase(file_name, self.excluded):
            return None
        before, _, after = PurePosixPath(self.pattern).name.partition("{scene}")
        suffixes = "|".join(re.escape(suffix) for suffix in IMAGE_SUFFIXES)
        ending = f"(?i:{suffixes})" if after == ".*" else re.escape(after)
        # Names that begin with a dot are what systems hide.
        match = re.fullmatch(f"(?![.]){re.escape(before)}(.+){ending}", file_name, re.DOTALL)
        return normal_form(match[1]) if match else None

    def lies_right(self, name: str) -> bool:
        """Whether a path ends in the pattern, folders included."""
        return PurePosixPath(name).match(self.pattern.replace("{scene}", "*"))


ANY_IMAGE: Final = RawSource("{scene}.*", channels=())
"""Images of every kind in one folder."""


def image_name(value: str) -> str:
    """Name of an image in its normal form, without the suffix that it may be written with."""
    value = normal_form(value)
    return ANY_IMAGE.scene_of(value) or value
