"""Whether external files are those that a result was made from, after a copy or a move of the project."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ome.pipeline.checksums import hashes_of
from ome.pipeline.manifest import Manifest


def same_content(sources: Any, outside: Sequence[Path], present: Manifest) -> bool:  # noqa: ANN401 - nested
    """Whether external files differ from those of a result in times and folders alone.

    Args:
        sources: What `Stage.external_files` returned.
        outside: The external files.
        present: The manifest of the result.
    """
    if not outside or _without_places(sources) != _without_places(present.config.get("sources")):
        return False
    return len(outside) == len(present.hashes) and hashes_of(outside) == present.hashes


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
