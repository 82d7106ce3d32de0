"""Checks the names of a run's folders."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from omegaconf import DictConfig, OmegaConf

from ome.data.names import check_name
from ome.errors import UserError

NEW: Final[set[Path]] = set()
"""Folders of this command that were not there when it started."""


def folder_faults(config: DictConfig) -> Iterator[str]:
    """Yields an error line for each empty folder, e.g. from an unset shell variable, and for a wrong name."""
    for key in ("output", "run_dir", "scenes"):
        folder = OmegaConf.select(config, key)
        if folder is None or not str(folder).strip():
            yield f"{key}= is empty, but must be a folder: type {key}=FOLDER, or omit it"
    names = {
        "dataset.name": "type another",
        "name": "type another, or choose run_dir=",
        "stage.predict.map_name": "type another",
    }
    for key, remedy in names.items():
        name = str(OmegaConf.select(config, key))
        try:
            # A run may lie in a folder of runs, as the jobs of a sweep do.
            for part in name.split("/") if key == "name" else [name]:
                check_name(part, key)
        except UserError:
            yield f"{key}={name} is not the name of a folder: {remedy}"
            break  # the name of the run contains that of the dataset


def checked_folder(key: str, *, _root_: DictConfig) -> str:
    """A resolver that returns a folder of the configuration to Hydra, which creates it.

    Raises:
        UserError: See `folder_faults`.
    """
    if faults := list(folder_faults(_root_)):
        raise UserError(*faults)
    folder = Path(str(OmegaConf.select(_root_, key)))
    NEW.update(path for path in (folder.absolute(), *folder.absolute().parents) if not path.exists())
    return str(folder)
