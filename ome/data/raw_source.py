"""Sources of a raw dataset's files: archives and name patterns."""

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Final

from ome.data.names import normal_form
from ome.geo.raster_folder import SUFFIXES


@dataclass(frozen=True)
class RawSource:
    """The source of one kind of files of a dataset.

    Attributes:
        pattern: Name of a scene's file with `{scene}` in it, e.g. `top_potsdam_{scene}_IRRG.tif`, or
            `{scene}.*` for images of any format. It may begin with folders, which must match for loose files.
            In an archive they only decide between several files of the same name, unless one of them is `*`,
            which matches any folder: then they must always match.
        archive: Name of the zip archive, or of several, all of which are needed; None for loose files.
        channels: Default bands (1-based) of the image; empty for all but opacity.
        excluded: Pattern of names to exclude from the matches of `pattern`, e.g. `*_label.png`.
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
        suffixes = "|".join(re.escape(suffix) for suffix in SUFFIXES)
        ending = f"(?i:{suffixes})" if after == ".*" else re.escape(after)
        # Names that begin with a dot are hidden files.
        match = re.fullmatch(f"(?![.]){re.escape(before)}(.+){ending}", file_name, re.DOTALL)
        return normal_form(match[1]) if match else None

    def matches_path(self, name: str) -> bool:
        """Whether the end of a path matches the pattern, folders included."""
        return PurePosixPath(name).match(self.pattern.replace("{scene}", "*"))


ANY_IMAGE: Final = RawSource("{scene}.*", channels=())
"""Images of any format in one folder."""


def image_name(value: str) -> str:
    """Name of an image in normal form, without a suffix."""
    value = normal_form(value)
    return ANY_IMAGE.scene_of(value) or value
