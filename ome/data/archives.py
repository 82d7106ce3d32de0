"""Files of a raw dataset, whether they lie in a zip archive, in its unpacked folder or loose."""

import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Final

from ome.data.names import normal_form
from ome.data.raw_file import MAX_MEMBER, RawFile, reading_zip
from ome.errors import UserError
from ome.files import text_of

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
    loose in `<raw>`; the first place that exists is the only one used. Of several archives, each is read as
    it is there, packed or unpacked.

    Args:
        source: What to look for.
        raw: The raw folder.

    Raises:
        NotFoundError: None of the places exists.
        UserError: An archive is damaged, or one of several is missing.
    """

    def __init__(self, source: RawSource, raw: Path) -> None:
        self.source = source
        self._raw = raw
        self._places, files = self._locate()
        self._files: dict[str, list[RawFile]] = {}
        anywhere = "*" not in str(source.folder)
        for file in files:
            scene = self.source.scene_of(PurePosixPath(file.name).name)
            if scene is not None and (anywhere or self.source.lies_right(file.name)):
                self._files.setdefault(scene, []).append(file)

    @property
    def where(self) -> Path:
        """The archive or the folder that holds the files; the raw folder where several do."""
        return self._places[0] if len(self._places) == 1 else self._raw

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

    def folder_of(self, scene: str) -> PurePosixPath | None:
        """The folders that the file of a scene lies in, below the raw folder, an archive's name among them.

        Raises:
            UserError: See `find`.
        """
        file = self.find(scene)
        if file is None:
            return None
        container = file.container.with_suffix("") if file.zipped else file.container
        return PurePosixPath((container / file.name).relative_to(self._raw).as_posix()).parent

    def text(self, name: str) -> str | None:
        """The content of a text file of that name that lies among the images; None where there is none."""
        for place in self._places:
            if place.is_dir():
                paths = sorted(path for path in place.rglob(name) if path.is_file())
                if paths:
                    return text_of(paths[0].read_bytes(), paths[0])
                continue
            with reading_zip(place), zipfile.ZipFile(place) as archive:
                for member in archive.namelist():
                    if PurePosixPath(member).name == name and "__MACOSX" not in member:
                        return text_of(archive.read(member), f"{place}/{member}")
        return None

    def _locate(self) -> tuple[list[Path], list[RawFile]]:
        raw, source = self._raw, self.source
        places: list[Path] = []
        files: list[RawFile] = []
        looked: list[str] = []
        for name in source.archives:
            archive = raw / name
            folder = archive.with_suffix("")
            if archive.is_file():
                places.append(archive)
                files += _zip_files(archive, source)
            elif folder.is_dir():
                places.append(folder)
                files += _plain_files(folder, source, folder.rglob("*"))
            else:
                looked += [str(archive), f"{folder}/"]
        if places and looked:
            raise UserError(
                f"{raw} holds {places[0].name}, and lacks {' or '.join(looked[:2])}: add it, or list the "
                "archives that you have by dataset.images.KIND.archive=[...] (dataset.masks.KIND.archive)"
            )
        if places:
            return places, files
        file_name = PurePosixPath(source.pattern).name
        for place in dict.fromkeys([raw / source.folder, raw]):
            looked.append(str(place / file_name))
            if files := list(_plain_files(place, source, place.glob("*"))):
                return [place], files
        if str(source.folder) != ".":
            nested = (path for folder in raw.rglob(str(source.folder)) for path in folder.glob("*"))
            if files := list(_plain_files(raw, source, nested)):
                return [raw], files
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
