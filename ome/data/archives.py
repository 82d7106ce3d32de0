"""Finds the files of a raw dataset, in a zip archive, in its unpacked folder or loose."""

import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath

from ome.data.raw_file import RawFile, check_expansion, reading_zip
from ome.data.raw_source import RawSource
from ome.errors import UserError, few
from ome.files import is_file, plain_text
from ome.geo.sidecars import sidecar_names


class NotFoundError(UserError):
    """None of the possible archives and folders exists."""


def find_files(sources: Mapping[str, RawSource], kind: str, raw: Path, key: str) -> "RawFiles":
    """The files of one of a dataset's sources, whose kind the setting `key` selects.

    Raises:
        UserError: See `RawFiles`; if files of another kind exist, the message says how to select them.
    """
    try:
        return RawFiles(sources[kind], raw)
    except NotFoundError as error:
        remedy = "give the folder of the data by dataset.raw=..."
        for other, source in sources.items():
            with suppress(UserError):
                if RawFiles(source, raw).scenes():
                    remedy = f"type {key}={other} to use the existing files, or add these"
        raise UserError(f"{error}: {remedy}") from error


class RawFiles:
    """The files of one source, found in the raw folder.

    They are searched in the archive `<raw>/<archive>`, then in the unpacked folder of the same name, then
    loose in `<raw>`; only the first existing place is used. Each of several archives may be packed or
    unpacked.

    Raises:
        NotFoundError: None of the places exists.
        UserError: An archive is damaged, or one of several is missing.
    """

    def __init__(self, source: RawSource, raw: Path) -> None:
        self.source = source
        self._raw = raw
        self._places, files = self._locate()
        self._files: dict[str, list[RawFile]] = {}
        any_folder = "*" not in str(source.folder)
        for file in files:
            scene = self.source.scene_of(PurePosixPath(file.name).name)
            if scene is not None and (any_folder or self.source.matches_path(file.name)):
                self._files.setdefault(scene, []).append(file)

    @property
    def where(self) -> Path:
        """The archive or folder that holds the files; the raw folder if there are several."""
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
            matches = [file for file in matches if self.source.matches_path(file.name)] or matches
        if len(matches) > 1:
            places = " and ".join(file.name for file in matches[:2])
            raise UserError(f"{self.where} holds {len(matches)} files for scene {scene}: {places}; keep one")
        return matches[0] if matches else None

    def folder_of(self, scene: str) -> PurePosixPath | None:
        """The folder of a scene's file, relative to the raw folder; an archive counts as a folder.

        Raises:
            UserError: See `find`.
        """
        file = self.find(scene)
        if file is None:
            return None
        container = file.container.with_suffix("") if file.zipped else file.container
        return PurePosixPath((container / file.name).relative_to(self._raw).as_posix()).parent

    def text(self, name: str) -> str | None:
        """The content of a text file of that name beside the images; None if there is none."""
        for place in self._places:
            if place.is_dir():
                paths = sorted(path for path in place.rglob(name) if path.is_file())
                if paths:
                    return plain_text(paths[0].read_bytes(), paths[0])
                continue
            with reading_zip(place), zipfile.ZipFile(place) as archive:
                for member in archive.namelist():
                    if PurePosixPath(member).name == name and "__MACOSX" not in member:
                        return plain_text(archive.read(member), f"{place}:{member}")
        return None

    def _locate(self) -> tuple[list[Path], list[RawFile]]:
        raw, source = self._raw, self.source
        places: list[Path] = []
        files: list[RawFile] = []
        missing: list[str] = []
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
                missing += [str(archive), f"{folder}/"]
        if places and missing:
            _check_names(raw, missing)
            raise UserError(
                f"{raw} holds {places[0].name}, and lacks {' or '.join(missing[:2])}: add it, or list the "
                "archives that you have by dataset.images.BANDS.archive=[...] and "
                "dataset.masks.REFERENCE.archive=[...], such as images.rgb and masks.full"
            )
        if places:
            return places, files
        file_name = PurePosixPath(source.pattern).name
        for place in dict.fromkeys([raw / source.folder, raw]):
            missing.append(str(place / file_name))
            if files := list(_plain_files(place, source, place.glob("*"))):
                return [place], files
        if str(source.folder) != ".":
            nested = (path for folder in raw.rglob(str(source.folder)) for path in folder.glob("*"))
            if files := list(_plain_files(raw, source, nested)):
                return [raw], files
        names = sorted(path.name for path in raw.iterdir()) if raw.is_dir() else []
        _check_names(raw, missing)
        holds = f"{raw} holds {few(names)}" if names else f"{raw} is empty"
        raise NotFoundError(f"found none of {', '.join(missing)}; {holds}")


def _check_names(raw: Path, missing: Sequence[str]) -> None:
    """Refuses archives that a browser or a file system has named otherwise, such as `Train (1).zip`."""
    archives = [Path(name) for name in missing if name.endswith(".zip")]
    renamed = [
        f"{path} to {archive.name}"
        for archive in archives
        for path in sorted(archive.parent.glob("*"))
        if re.sub(r"\s*\(\d+\)(?=\.zip$)", "", path.name.lower()) == archive.name.lower()
    ]
    if renamed:
        raise UserError(f"{raw} lacks {archives[0]}: rename {', '.join(renamed)}")


def _zip_files(path: Path, source: RawSource) -> Iterator[RawFile]:
    """The members that match the source's pattern, in any folder of the archive.

    Raises:
        UserError: The archive is damaged or malicious; nothing of it is read.
    """
    with reading_zip(path), zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    files = {
        (str(PurePosixPath(one.filename).parent), PurePosixPath(one.filename).name.lower()): one
        for one in members
    }
    for member in members:
        name = PurePosixPath(member.filename)
        if name.is_absolute() or ".." in name.parts:
            raise UserError(f"{path} holds {member.filename!r}, whose path leaves the archive: refused")
        # macOS adds a metadata file for each real one.
        if source.scene_of(name.name) is None or "__MACOSX" in name.parts:
            continue
        check_expansion(path, member)
        beside = [files.get((str(name.parent), sidecar)) for sidecar in sidecar_names(name)]
        sidecars = [sidecar for sidecar in beside if sidecar is not None]
        for sidecar in sidecars:
            check_expansion(path, sidecar)
        names = tuple(sidecar.filename for sidecar in sidecars)
        stamp = sum(file.CRC for file in (member, *sidecars))
        yield RawFile(path, member.filename, member.file_size, stamp, names)


def _plain_files(folder: Path, source: RawSource, paths: Iterable[Path]) -> Iterator[RawFile]:
    """The files that match the source's pattern; GDAL finds the files beside them."""
    for path in sorted(paths):
        if source.scene_of(path.name) is not None and is_file(path):
            status = path.stat()
            yield RawFile(folder, str(path.relative_to(folder)), status.st_size, status.st_mtime_ns)
