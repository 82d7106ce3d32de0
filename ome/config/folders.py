"""Checks the names of a run's folders."""

from collections.abc import Iterator

from omegaconf import DictConfig, OmegaConf

from ome.errors import UserError


def folder_faults(config: DictConfig) -> Iterator[str]:
    """Gives a line for each folder that is empty, as a shell leaves unset variables, or leads elsewhere."""
    for key in ("output", "run_dir", "scenes"):
        folder = OmegaConf.select(config, key)
        if folder is None or not str(folder).strip():
            yield f"{key}= is empty, where a folder is needed: type {key}=FOLDER, or leave it out"
    if {"", ".", ".."} & {part.strip() for part in str(config.name).split("/")}:
        yield f"name={config.name} is not the name of a folder: type another, or choose run_dir="


def checked_folder(key: str, *, _root_: DictConfig) -> str:
    """A folder of the configuration, for Hydra, which makes it before any stage starts.

    Raises:
        UserError: See `folder_faults`.
    """
    if faults := list(folder_faults(_root_)):
        raise UserError("\n".join(faults))
    return str(OmegaConf.select(_root_, key))
