"""Why an existing result is not up to date, and whether files outside the run are still those it used."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ome.pipeline.checksums import hashes_of
from ome.pipeline.manifest import Manifest
from ome.plugins import CODE
from ome.scoring.spread import flatten

MOST: Final = 6
"""Largest number of changes that are named."""


def changes_since(result: Manifest, used: Mapping[str, Any], inputs: Mapping[str, str]) -> list[str]:
    """Names what a stage would now compute from in another form than for its result.

    Args:
        result: Manifest of the result.
        used: The configuration that the stage depends on, as in `Manifest.config`.
        inputs: Fingerprints of the stages that it reads, by name.

    Returns:
        Addresses of settings, names of files outside the run, and `the result of <stage>`; `the code of the
        stage` if nothing else has changed.
    """
    before, now = flatten(result.config), flatten(used)
    keys = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
    changes = [_in_words(key, result.stage) for key in keys if key != "sources"]
    if "sources" in keys:
        files = {*identities(result.config.get("sources"))} ^ {*identities(used.get("sources"))}
        changes += sorted({name for name, *_ in files}) or ["files outside the run"]
    names = [name for name in {**result.inputs, **inputs} if result.inputs.get(name) != inputs.get(name)]
    changes += [f"the result of {name}" for name in names]
    if len(changes) > MOST:
        changes[MOST - 1 :] = [f"{len(changes) - MOST + 1} more"]
    return changes or ["the code of the stage"]


def _in_words(key: str, stage: str) -> str:
    """The address of a setting of a stage, or whose code has changed."""
    if key.startswith(f"{CODE}."):
        return f"the code of {key.removeprefix(f'{CODE}.')}"
    return key.replace("stage.", f"stage.{stage}.", 1)


def identities(sources: Any) -> Iterator[tuple[str, int | str, int]]:  # noqa: ANN401 - nested lists
    """The identities of files (see `ome.pipeline.manifest.identity`) in nested lists, also in a row.

    Those of maps of the run are their names and fingerprints.
    """
    if isinstance(sources, list | tuple):
        for place, one in enumerate(sources):
            match sources[place : place + 3]:
                case [str(name), int(size), int(changed)]:
                    yield name, size, changed
                case [str(name), str(fingerprint)] if re.fullmatch("[0-9a-f]{16}", fingerprint):
                    yield f"the map {name}", fingerprint, 0
            yield from identities(one)


def same_content(sources: Any, outside: Sequence[Path], present: Manifest) -> bool:  # noqa: ANN401 - nested
    """Whether external files differ from those of a result in times and folders alone, as after a move.

    Args:
        sources: What `Stage.external_files` returned.
        outside: The external files.
        present: The manifest of the result.
    """
    if not outside or _without_places(sources) != _without_places(present.config.get("sources")):
        return False
    return _have_hashes(outside, present)


def same_files(files: Sequence[tuple[Path, list[Any]]], present: Manifest, *, times: bool) -> bool:
    """Whether external files are those of a result, wherever they are.

    Args:
        files: The files with their identities, see `recorded`.
        present: The manifest of the result.
        times: Whether equal times tell that the content is the same.
    """
    before, now = [*identities(present.config.get("sources"))], [tuple(values) for _, values in files]
    if times and before == now:
        return True
    if [values[:2] for values in before] != [values[:2] for values in now]:
        return False
    return _have_hashes([path for path, _ in files], present)


def _have_hashes(files: Sequence[Path], present: Manifest) -> bool:
    """Whether files have the content of a result's external files; reads them only if they are as many."""
    return len(files) == len(present.hashes) and _known_hashes(files) == present.hashes


def edited_files(files: Sequence[tuple[Path, list[Any]]], present: Manifest) -> list[str]:
    """Names of external files whose content is not that of a result's files of the same names.

    Args:
        files: The files with their identities, see `recorded`.
        present: The manifest of the result.

    Returns:
        The names; empty where the names differ, too, as in another dataset.
    """
    names = [values[0] for _, values in files]
    before = [name for name, *_ in identities(present.config.get("sources"))]
    if names != before or len(names) != len(present.hashes):
        return []
    hashes = _known_hashes([path for path, _ in files])
    return [name for name, then, now in zip(names, present.hashes, hashes, strict=True) if then != now]


_hashes: Final[dict[tuple[str, int, int, int, int], str]] = {}
"""Hashes of the files read so far, by path, inode, size and times: a plan and its run ask twice."""


def _known_hashes(files: Sequence[Path]) -> list[str]:
    """As `hashes_of`, but each file is read once as long as it does not change."""
    states = [(str(path.absolute()), path.stat()) for path in files]
    keys = [
        (name, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns) for name, state in states
    ]
    new = [(key, path) for key, path in zip(keys, files, strict=True) if key not in _hashes]
    _hashes.update(zip([key for key, _ in new], hashes_of([path for _, path in new]), strict=True))
    return [_hashes[key] for key in keys]


def _without_places(sources: Any) -> Any:  # noqa: ANN401
    """The same with names for whole paths, and without the time in each `identity`, which may be in a row."""
    if isinstance(sources, str) and sources.startswith("/"):
        return Path(sources).name
    if not isinstance(sources, list | tuple):
        return sources
    kept = []
    for place, one in enumerate(sources):
        match sources[max(0, place - 2) : place + 1]:
            case [str(), int(), int()]:
                continue
        kept.append(_without_places(one))
    return kept
