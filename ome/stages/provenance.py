"""What a report says of the files that a run was made from."""

import hashlib
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ome.stages.manifest import Manifest

LISTED = 20
"""Files that are named one by one; of more, the digest of the whole list is given."""

HASHED = ("backbone.weights", "segmenter.weights", "dataset.tags")


def describe_inputs(config: DictConfig, manifests: Mapping[str, Manifest]) -> str:
    """Names the files from outside that the stages read.

    Raw files are told by name, size and time of change, as they were when the scenes were prepared; weights
    and the table of tags by their content, as it is now.

    Args:
        config: The configuration of the run.
        manifests: Of the finished stages, by name.

    Returns:
        One line a file, and the seed.
    """
    lines = [f"seed {config.seed}"]
    raw = list(_files(manifests["prepare"].config.get("sources", []))) if "prepare" in manifests else []
    lines += [
        f"{name}  {size} bytes  changed {_time(nanoseconds)}" for name, size, nanoseconds in raw[:LISTED]
    ]
    if len(raw) > LISTED:
        digest = hashlib.sha256(repr(raw).encode()).hexdigest()
        lines.append(f"and {len(raw) - LISTED} more; sha256 of the whole list {digest}")
    given = {key: OmegaConf.select(config, key) for key in HASHED}
    if "cam" in manifests:
        given["stage.cam.checkpoint"] = manifests["cam"].config["stage"].get("checkpoint")
    for key, value in given.items():
        if value is not None and Path(value).is_file():
            with Path(value).open("rb") as stream:
                lines.append(f"{key}={value}  sha256 {hashlib.file_digest(stream, 'sha256').hexdigest()}")
    return "\n".join(lines)


def _files(sources: list[Any]) -> Iterator[tuple[str, int, int]]:
    """The entries of `identity` among the sources of stage=prepare."""
    for entry in sources:
        if isinstance(entry, list) and len(entry) == 3 and isinstance(entry[1], int):
            yield entry[0], entry[1], entry[2]


def _time(nanoseconds: int) -> str:
    return datetime.fromtimestamp(nanoseconds / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
