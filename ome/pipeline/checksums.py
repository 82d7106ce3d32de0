"""The file list of a finished stage: sizes and hashes reveal missing, truncated and changed files."""

import hashlib
import os
import re
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from ome.damage import DamagedError
from ome.files import final_path, read_csv, sync, write_csv
from ome.pipeline.manifest import NAME as MANIFEST

NAME = "files.csv"

# Not listed: the list itself, the manifest, which is written after it, and names that start with a dot.
_UNLISTED = (NAME, MANIFEST)

# Names that start with a dot and may be removed: marks and locks of ome, and files of macOS.
_REMOVABLE = re.compile(r"\.?\.fingerprint(\.\d+)?|\..+\.lock|\.DS_Store|\._.*")

# QGIS and GDAL write statistics and styles into these, so they are only checked to exist.
_OF_VIEWERS = (".aux.xml", ".qml", ".qmd", ".ovr", ".gpkg-wal", ".gpkg-shm")


class Listed(NamedTuple):
    """One file of a stage.

    Attributes:
        name: Path relative to the stage's folder.
        size: Size in bytes.
        sha256: First 16 digits of its hash.
    """

    name: str
    size: int
    sha256: str


def write_listing(folder: Path) -> int:
    """Writes the list of a stage's files, in the order in which they were written, and syncs them to disk.

    Returns:
        The number of files.
    """
    entries = sorted(_files(folder), key=lambda entry: (entry.stat().st_mtime_ns, entry.path))
    paths = [Path(entry.path) for entry in entries]
    hashes = hashes_of(paths)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(sync, [*paths, folder, *(path for path in folder.rglob("*") if path.is_dir())]))
    rows = [
        Listed(str(path.relative_to(folder)), entry.stat().st_size, digest)
        for path, entry, digest in zip(paths, entries, hashes, strict=True)
    ]
    write_csv(folder / NAME, Listed._fields, rows)
    return len(rows)


def hashes_of(paths: Sequence[Path]) -> list[str]:
    """The first 16 digits of the SHA-256 of each file."""
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(_hash, paths))


def damaged(folder: Path, files: int | None, *, verify: bool, replaced: bool = False) -> list[str] | None:
    """Compares a stage's folder with its list.

    Names, sizes and times cost a second for 100,000 files; hashes read every byte. A file that is newer than
    the manifest, the last one that a stage writes, is compared by its hash: an edit may keep the size. Not so
    a GeoPackage, whose header a viewer changes.

    Args:
        folder: Folder of the stage.
        files: Number of files in the list, from the manifest; None if there is no list to compare with.
        verify: Compare the hashes of all files.
        replaced: Compare the hash of a newer GeoPackage as well, which may have been edited.

    Returns:
        Names of the files that are missing or changed, in the order in which they were written; None where
        the list itself is damaged.
    """
    if files is None:
        return []
    listed = _read(folder)
    if len(listed) != files:
        return None
    states = {os.path.relpath(entry.path, folder): entry.stat() for entry in _files(folder)}
    missing = {line.name for line in listed if line.name not in states}
    fixed = [line for line in listed if line.name not in missing and not line.name.endswith(_OF_VIEWERS)]
    wrong = missing | {line.name for line in fixed if states[line.name].st_size != line.size}
    manifest = folder / MANIFEST
    finished = manifest.stat().st_mtime_ns if manifest.exists() and not verify else 0
    newer = [line for line in fixed if line.name not in wrong and states[line.name].st_mtime_ns > finished]
    unsure = [line for line in newer if verify or replaced or not line.name.endswith(".gpkg")]
    hashes = hashes_of([folder / line.name for line in unsure])
    wrong |= {line.name for line, digest in zip(unsure, hashes, strict=True) if digest != line.sha256}
    if unsure and finished and not wrong:  # a copy without the times: its files are hashed once
        latest = max(states[line.name].st_mtime_ns for line in unsure)
        with suppress(OSError):
            os.utime(manifest, ns=(latest, latest))
    return [line.name for line in listed if line.name in wrong]


def intact(folder: Path, names: Collection[str]) -> list[str]:
    """Those of the names whose files have the listed hash, in the order of the list."""
    listed = [line for line in _read(folder) if line.name in names]
    present = [line for line in listed if (folder / line.name).is_file()]
    hashes = hashes_of([folder / line.name for line in present])
    return [line.name for line, digest in zip(present, hashes, strict=True) if digest == line.sha256]


def has_listing(folder: Path) -> bool:
    """Whether a folder has the list of a finished stage, which names one file at least."""
    return bool(_read(folder))


def unlisted(folder: Path, files: int) -> list[str]:
    """Names of files that are neither listed nor written by a viewer; empty where the list is damaged."""
    listed = {line.name for line in _read(folder)}
    stems = listed | {str(Path(name).with_suffix("")) for name in listed}
    viewed = {stem + ending for stem in stems for ending in _OF_VIEWERS}
    known = {*listed, *viewed, *_UNLISTED}
    others = sorted(name for name, final in _names(folder) if final not in known)
    return others if len(listed) == files else []


def unwritten(folder: Path, written: Collection[str]) -> list[str]:
    """Names of files that are neither among those written, which may be folders, nor below one of them."""
    known = {*written, *_UNLISTED}
    return sorted(
        name for name, final in _names(folder) if known.isdisjoint({final, *map(str, Path(name).parents)})
    )


def remove_from(folder: Path, name: str) -> list[str]:
    """Removes a listed file and all files written after it, which may depend on it; returns the others."""
    kept, lost = split_at(folder, name)
    for path in (folder / later for later in lost):
        if path.is_dir() and not path.is_symlink():  # somebody made an empty folder in its place
            path.rmdir()
        else:
            path.unlink(missing_ok=True)
    return kept


def split_at(folder: Path, name: str) -> tuple[list[str], list[str]]:
    """Splits the listed files at one of them: those written before it, and the file with those after it."""
    names = [line.name for line in _read(folder)]
    place = names.index(name)
    return names[:place], names[place:]


def _names(folder: Path) -> Iterator[tuple[str, str]]:
    """Names of files that may be a person's, each with the one that it would get if temporary."""
    for entry in _walk(folder):
        if not _REMOVABLE.fullmatch(entry.name):
            name = os.path.relpath(entry.path, folder)
            yield name, str(final_path(Path(name)))


def _read(folder: Path) -> list[Listed]:
    try:
        rows = read_csv(folder / NAME)
        listed = [Listed(row["name"], int(row["size"]), row["sha256"]) for row in rows]
        # Listed files may be removed, so a list with a path outside the folder is rejected.
        return [] if any({"..", "/"} & set(Path(line.name).parts) for line in listed) else listed
    except (OSError, KeyError, ValueError, DamagedError):
        return []


def _files(folder: Path) -> Iterator[os.DirEntry[str]]:
    """The files that belong into the list; links that lead nowhere are none."""
    for entry in _walk(folder):
        hidden = entry.name.startswith(".") or os.path.relpath(entry.path, folder) in _UNLISTED
        if not hidden and entry.is_file():
            yield entry


def _walk(folder: Path | str) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(entry.path)
            else:
                yield entry


def _hash(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:16]
