"""What an unfinished result is made from: it resumes although files outside the run were copied again.

Weights and tables have new times on each machine to which a job copies them.
"""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Final

from ome.errors import UserError
from ome.files import read_json, write_json
from ome.pipeline.checksums import hashes_of
from ome.pipeline.manifest import Manifest
from ome.pipeline.marks import MARK, read_mark
from ome.pipeline.place import Place
from ome.pipeline.stage import Stage

NAME: Final = "started.json"
"""File in a run's logs of a stage: the part of the manifest that is known when the stage starts."""

LARGEST: Final = 1_000_000_000
"""Largest number of bytes of external files that are read for their hashes at the start."""


def write_started(stage: Stage, logs: Path, manifest: Manifest, outside: Sequence[Path]) -> None:
    """Records what a result is made from, unless the external files are large, or there are none.

    Args:
        stage: The stage; those whose results are scenes are left out, as they start from large files.
        logs: The run's logs of the stage.
        manifest: What is known of its manifest.
        outside: The external files.
    """
    is_scene = stage.name == "prepare" or stage.part is not None
    if outside and not is_scene and sum(path.stat().st_size for path in outside) <= LARGEST:
        write_json(logs / NAME, asdict(replace(manifest, hashes=hashes_of(outside))))


def started_in(logs: Path, place: Place) -> Manifest | None:
    """The record of the stage whose partial folder is in a place; None if there is none."""
    if not (logs / NAME).exists() or not (place.partial / MARK).exists():
        return None
    try:
        started = Manifest(**read_json(logs / NAME))
    except (UserError, OSError, TypeError):
        return None
    return started if started.fingerprint == read_mark(place.partial)[0] else None
