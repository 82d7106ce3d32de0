"""Reads the layout of a raw dataset from the configuration, without importing torch."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ome.data.folder import folder_layout
from ome.data.raw import RawLayout, layout_from_facts
from ome.errors import UserError, no_folder
from ome.pipeline.artifacts import plain

FACTS = (
    *("name", "bands", "reference", "classes", "ignored", "indices", "range", "nodata"),
    *("images", "masks", "split", "channels", "tags"),
)
"""Keys of `dataset` that describe the raw data."""


def is_folder_of_images(config: DictConfig) -> bool:
    """Whether the dataset is a folder of images with a table of tags that has classes and split."""
    return bool(config.dataset.split == "tags")


def raw_layout(config: DictConfig) -> RawLayout:
    """The layout of the raw dataset.

    Raises:
        UserError: A setting is missing, of the wrong kind, or does not fit the dataset.
    """
    facts: dict[str, Any] = {key: plain(config, f"dataset.{key}") for key in FACTS if key in config.dataset}
    facts["unknown_as_first"] = config.quirks.unknown_colours_as_first_class
    if is_folder_of_images(config):
        return folder_layout(facts, Path(raw_folder(config)))
    if (fault := split_fault(config)) is not None:
        raise UserError(fault)
    return layout_from_facts(facts)


def split_fault(config: DictConfig) -> str | None:
    """An error line if the split is that of another dataset, else None."""
    dataset = config.dataset
    if is_folder_of_images(config) or "images" in dataset:
        return None
    return (
        f"dataset.split={dataset.split} does not fit the dataset {dataset.name}, whose table of tags has "
        "the split: leave out the experiment=... of another dataset, or type dataset.split=tags"
    )


def nodata_of(config: DictConfig) -> dict[str, Any]:
    """The setting `dataset.nodata` by its key; empty if it is not set."""
    nodata = config.dataset.get("nodata")
    return {} if nodata is None else {"dataset.nodata": nodata}


def is_raw_set(config: DictConfig) -> bool:
    """Whether `dataset.raw` names a folder."""
    return not OmegaConf.is_missing(config.dataset, "raw") and bool(config.dataset.raw)


def raw_folder(config: DictConfig) -> str:
    """The folder of the raw archives, or of the images.

    Raises:
        UserError: It is not set.
    """
    if not is_raw_set(config):
        raise UserError(raw_fault(config) or "")
    return str(config.dataset.raw)


def raw_fault(config: DictConfig) -> str | None:
    """An error line if the raw folder is not set or does not exist, else None; a town is written later."""
    kind = "folder/of/images" if is_folder_of_images(config) else f"archives/of/{config.dataset.name}"
    remedy = f"type dataset.raw=/path/to/the/{kind}"
    if not is_raw_set(config):
        return f"dataset.raw is not set: {remedy}"
    raw = Path(config.dataset.raw)
    if config.dataset.get("town") is not None or raw.is_dir():
        return None
    return f"{no_folder(raw)}: {remedy}"
