"""Files of a raw dataset, whether they lie in a zip archive, in its unpacked folder or loose."""

import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from ome.data.names import normal_form
from ome.data.raw_file import MAX_MEMBER, RawFile, reading_zip
from ome.errors import UserError

MAX_RATIO: Final = 1000
"""Expansion that is refused in a member larger than `SMALL_MEMBER`; one-coloured masks come close to it."""

SMALL_MEMBER: Final = 256 << 20
"""Bytes up to which a member may expand at any ratio."""

LISTED: Final = 5
"""Names that an error lists of many."""

WORLD_FILES: Final = {".tif": (".tfw", ".wld"), ".jpg": (".jgw", ".wld"), ".png": (".pgw", ".wld")}
"""Suffixes of the files that may hold the georeference of an image."""


IMAGE_SUFFIXES: Final = (".tif", ".tiff", ".png", ".jpg", ".jpeg")
"""What `.*` at the end of a pattern stands for, in small or capital letters."""


@dataclass(frozen=True)
class RawSource:
    """Where a dataset keeps one kind of files.

    Attributes:
        pattern: Name of a scene's file with `{scene}` in it, e.g. `top_potsdam_{scene}_IRRG.tif`, or
            `{scene}.*` for images of every kind. Folders before it count for loose files, and in an archive
            where a file of that name lies in several: there it is found in whatever folder it lies.
        archive: Name of the zip archive; None for files that are distributed loose.
        channels: Bands (1-based) to read as the image by default; empty for all that show something.
    """

    pattern: str
    archive: str | None = None
    channels: tuple[int, ...] = (1, 2, 3)

    def file_name(self, scene: str) -> str:
        """Name of a scene's file, without folders."""
        return PurePosixPath(self.pattern).name.replace("{scene}", scene)

    def scene_of(self, file_name: str) -> str | None:
        """The scene that a file name belongs to; None when it does not match the pattern."""
        before, _, after = PurePosixPath(self.pattern).name.partition("{scene}")
        suffixes = "|".join(re.escape(suffix) for suffix in IMAGE_SUFFIXES)
        ending = f"(?i:{suffixes})" if after == ".*" else re.escape(after)
        # Names that begin with a dot are what systems hide.
        match = re.fullmatch(f"(?![.]){re.escape(before)}(.+){ending}", file_name)
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


def check_expansion(path: Path, member: zipfile.ZipInfo) -> None:
    """Refuses a member that would fill the memory.

    Raises:
        UserError: When it unpacks to more than `MAX_MEMBER` bytes, or to over `MAX_RATIO` times its size.
    """
    expanded = f"{path}:{member.filename} unpacks from {member.compress_size} to {member.file_size} bytes"
    if member.file_size > MAX_MEMBER:
        raise UserError(f"{expanded}: more than {MAX_MEMBER} are refused")
    if member.file_size > SMALL_MEMBER and member.file_size > MAX_RATIO * max(member.compress_size, 1):
        raise UserError(f"{expanded}: more than {MAX_RATIO} times are refused")


class NotFoundError(UserError):
    """None of the places where files may lie exists."""


def find_files(sources: Mapping[str, RawSource], kind: str, raw: Path, key: str) -> "RawFiles":
    """The files of one of a dataset's sources.

    Args:
        sources: Where the files are, by kind.
        kind: The kind to look for.
        raw: The raw folder.
        key: The setting that chooses the kind, for the error.

    Raises:
        UserError: See `RawFiles`; where files of another kind are there, the line says how to choose them.
    """
    try:
        return RawFiles(sources[kind], raw)
    except NotFoundError as error:
        remedy = "give the folder of the data by dataset.raw=..."
        for other, source in sources.items():
            with suppress(UserError):
                if RawFiles(source, raw).scenes():
                    remedy = f"type {key}={other} to use what is there, or add these files"
        raise UserError(f"{error}: {remedy}") from error


class RawFiles:
    """The files of one source, found in the raw folder.

    They are looked for in the archive `<raw>/<archive>`, then in the unpacked folder of the same name, then
    loose in `<raw>`; the first place that exists is the only one used.

    Args:
        source: What to look for.
        raw: The raw folder.

    Raises:
        NotFoundError: None of the places exists.
        UserError: An archive is damaged.
    """

    def __init__(self, source: RawSource, raw: Path) -> None:
        self.source = source
        self.where, files = self._locate(raw)
        self._files: dict[str, list[RawFile]] = {}
        for file in files:
            scene = self.source.scene_of(PurePosixPath(file.name).name)
            if scene is not None:
                self._files.setdefault(scene, []).append(file)

    def scenes(self) -> list[str]:
        """Names of all scenes that have a file here, sorted."""
        return sorted(self._files)

    def find(self, scene: str) -> RawFile | None:
        """The file of a scene; None when there is none.

        Raises:
            UserError: When several folders hold a file of that name.
        """
        matches = self._files.get(scene, [])
        if len(matches) > 1:
            matches = [file for file in matches if self.source.lies_right(file.name)] or matches
        if len(matches) > 1:
            places = " and ".join(file.name for file in matches[:2])
            raise UserError(f"{self.where} holds {len(matches)} files for scene {scene}: {places}; keep one")
        return matches[0] if matches else None

    def _locate(self, raw: Path) -> tuple[Path, list[RawFile]]:
        looked: list[str] = []
        if self.source.archive is not None:
            archive = raw / self.source.archive
            folder = archive.with_suffix("")
            if archive.is_file():
                return archive, list(_zip_files(archive, self.source))
            if folder.is_dir():
                return folder, list(_plain_files(folder, self.source, folder.rglob("*")))
            looked += [str(archive), f"{folder}/"]
        pattern = PurePosixPath(self.source.pattern)
        for place in dict.fromkeys([raw / pattern.parent, raw]):
            looked.append(str(place / pattern.name))
            if files := list(_plain_files(place, self.source, place.glob("*"))):
                return place, files
        names = sorted(path.name for path in raw.iterdir()) if raw.is_dir() else []
        more = ", ..." if len(names) > LISTED else ""
        holds = f"{raw} holds {', '.join(names[:LISTED])}{more}" if names else f"{raw} is empty"
        raise NotFoundError(f"found none of {', '.join(looked)}; {holds}")


def _zip_files(path: Path, source: RawSource) -> Iterator[RawFile]:
    """The members that match the source's pattern, in any folder of the archive.

    Raises:
        UserError: The archive is damaged, or is made to do harm: nothing of it is read.
    """
    with reading_zip(path), zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    names = {member.filename for member in members}
    for member in members:
        name = PurePosixPath(member.filename)
        if name.is_absolute() or ".." in name.parts:
            raise UserError(f"{path} holds {member.filename!r}, whose path leaves the archive: refused")
        # The second set of files that some packers add for every real one.
        if source.scene_of(name.name) is None or "__MACOSX" in name.parts:
            continue
        check_expansion(path, member)
        suffixes = WORLD_FILES.get(name.suffix.lower(), ())
        siblings = tuple(str(name.with_suffix(suffix)) for suffix in suffixes)
        present = tuple(sibling for sibling in siblings if sibling in names)
        yield RawFile(path, member.filename, member.file_size, member.CRC, present)


def _plain_files(folder: Path, source: RawSource, paths: Iterable[Path]) -> Iterator[RawFile]:
    """The files that match the source's pattern; world files beside them are found by the raster library."""
    for path in sorted(paths):
        if source.scene_of(path.name) is not None and path.is_file():
            status = path.stat()
            yield RawFile(folder, str(path.relative_to(folder)), status.st_size, status.st_mtime_ns)
