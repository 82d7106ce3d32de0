"""Manifests: what a stage's result was made from, and the fingerprint of that."""

import hashlib
import json
import platform
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ome.damage import named_if_damaged
from ome.files import read_json, write_json

NAME = "manifest.json"
RESOLVED = "resolved.yaml"
"""The resolved configuration that a finished command writes beside its logs."""

_recorder: ContextVar[list[tuple[Path, list[Any]]] | None] = ContextVar("_recorder", default=None)


@dataclass(frozen=True)
class Manifest:
    """The record that makes a folder a finished artefact; a folder without one is unfinished.

    Attributes:
        stage: Name of the stage that wrote the folder.
        fingerprint: Hash of everything the result depends on; see `compute_fingerprint`.
        config: The part of the configuration that the result depends on, resolved.
        inputs: Fingerprint of each earlier stage that was read, by name.
        counts: Numbers that the stage reports: tiles, pixels, dropped tiles and the like.
        files: Number of files in its list, see `ome.pipeline.checksums`; None where there is no list.
        hashes: SHA-256 (first 16 digits) of each external file that was read, in the order of the calls of
            `identity`.
        seconds: Wall-clock time of the run that finished the folder.
        versions: Versions of ome and of the libraries that change numbers, and the git revision.
    """

    stage: str
    fingerprint: str
    config: dict[str, Any]
    inputs: dict[str, str]
    counts: dict[str, Any] = field(default_factory=dict)
    files: int | None = None
    hashes: list[str] = field(default_factory=list)
    seconds: float = 0.0
    versions: dict[str, str] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Writes the manifest into `folder`, which marks the stage as finished."""
        write_json(folder / NAME, asdict(self))

    @classmethod
    def read(cls, folder: Path) -> "Manifest | None":
        """Reads the manifest of `folder`; None where there is no finished artefact.

        Raises:
            DamagedError: The file exists but is not a manifest.
        """
        path = folder / NAME
        if not path.is_file():
            return None
        remedy = f"if ome wrote {folder}, delete it and run the stage again; if not, choose another "
        with named_if_damaged(path, f"{remedy}run_dir=... or scenes=..."):
            return cls(**read_json(path))


def compute_fingerprint(
    stage: str, stage_version: int, config: dict[str, Any], inputs: dict[str, str]
) -> str:
    """Hashes everything that a stage's result depends on: code version, configuration and inputs."""
    content = json.dumps([stage, stage_version, config, inputs], sort_keys=True, default=str)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def identity(path: Path | str | None) -> list[Any]:
    """Name, size and modification time of an external file, or just the name if it does not exist.

    Archives and weights are too large to be hashed at every start, and replacing a file changes these values.
    Hashes are recorded when the stage is done, see `recorded`, and compared with `verify=true`.
    """
    if path is None or not Path(path).is_file():
        return [path]
    state = Path(path).stat()
    values = [Path(path).name, state.st_size, state.st_mtime_ns]
    if (files := _recorder.get()) is not None:
        files.append((Path(path), values))
    return values


@contextmanager
def recorded() -> Iterator[list[tuple[Path, list[Any]]]]:
    """Yields a list to which `identity` adds each of its files, and what it returns, while the block runs."""
    files: list[tuple[Path, list[Any]]] = []
    token = _recorder.set(files)
    try:
        yield files
    finally:
        _recorder.reset(token)


@cache
def versions() -> dict[str, str]:
    """Versions of Python, ome and the libraries that compute results."""
    releases = {"python": platform.python_version(), "git": _git_revision()}
    for package in ("ome", "torch", "numpy", "numba", "pytorch-lightning", "segmentation-models-pytorch"):
        try:
            releases[package] = version(package)
        except PackageNotFoundError:
            releases[package] = "not installed"
    return releases


def _git_revision() -> str:
    here = Path(__file__).resolve().parent
    command = ["git", "-C", str(here), "describe", "--always", "--dirty"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return answer.stdout.strip()
