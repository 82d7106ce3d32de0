"""Trainings of an earlier result that a stage with other settings or inputs need not repeat."""

import shutil
from pathlib import Path
from typing import Final, NamedTuple

from omegaconf import DictConfig

from ome.files import atomic_path
from ome.pipeline.artifacts import inherited_runs
from ome.pipeline.checksums import intact
from ome.pipeline.layout import HISTORY, NETWORK
from ome.pipeline.manifest import Manifest, compute_fingerprint
from ome.pipeline.marks import read_if_whole
from ome.pipeline.stage import Stage, Unread
from ome.scoring.spread import flatten

TRAINED: Final = (HISTORY, NETWORK)
"""Files of a finished training, in the order in which they are written."""


class Kept(NamedTuple):
    """Files of an earlier result that the present one would write again, byte for byte.

    Attributes:
        folder: Folder of the earlier result.
        names: Their names in it.
    """

    folder: Path
    names: tuple[str, ...] = ()


def kept_files(stage: Stage, config: DictConfig, folder: Path, now: Manifest) -> Kept:
    """Finds finished trainings that read nothing of what has changed since.

    Args:
        stage: The stage.
        config: The configuration; the runs that it inherits from count as well.
        folder: Folder of the stage's result.
        now: Manifest of the result that will replace it, as far as it is known.

    Returns:
        The intact files of the first result that has any; no names if none has.
    """
    folders = [folder, *(run / stage.name for run in inherited_runs(config))] if stage.trainings else []
    for one in folders:
        before = read_if_whole(one)
        if before is None or not _is_of_this_version(stage, before):
            continue
        names = [
            str(path.relative_to(one))
            for pattern, unread in stage.trainings.items()
            if _reads_the_same(before, now, unread)
            for name in TRAINED
            for path in sorted(one.glob(f"{pattern}/{name}"))
        ]
        if whole := intact(one, names):
            return Kept(one, tuple(whole))
    return Kept(folder)


def copy_files(kept: Kept, folder: Path) -> list[str]:
    """Copies the files that a folder lacks, except of trainings interrupted there; returns their names."""
    missing = [name for name in kept.names if not (folder / name).exists()]
    missing = [name for name in missing if not any((folder / name).parent.glob("*.ckpt"))]
    for name in missing:
        with atomic_path(folder / name) as temporary:
            shutil.copyfile(kept.folder / name, temporary)
    return missing


def _is_of_this_version(stage: Stage, before: Manifest) -> bool:
    recorded = compute_fingerprint(stage.name, stage.version, before.config, before.inputs)
    return recorded == before.fingerprint


def _reads_the_same(before: Manifest, now: Manifest, unread: Unread) -> bool:
    """Whether two results differ only in what a training does not read."""
    stages = {name for name in before.inputs | now.inputs if before.inputs.get(name) != now.inputs.get(name)}
    then, settings = flatten(before.config), flatten(now.config)
    keys = {key for key in then | settings if then.get(key) != settings.get(key)}
    besides = tuple(f"{key}." for key in unread.settings)
    return stages <= {*unread.inputs} and all(f"{key}.".startswith(besides) for key in keys)
