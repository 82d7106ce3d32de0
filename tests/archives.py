"""Miniature raw datasets in the layouts and under the names of the real ones."""

import io
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from omegaconf import OmegaConf
from rasterio.io import MemoryFile

from ome.data.raw import RawLayout, layout_from_facts
from ome.geo.raster import open_class_map
from tests.conftest import compose_config

Form = Literal["zip", "folder", "loose"]
Pixels = NDArray[np.uint8]

# Written out once more, so that a wrong colour in a dataset's facts is noticed.
ISPRS = [(255, 255, 255), (0, 0, 255), (0, 255, 255), (0, 255, 0), (255, 255, 0)]
ISPRS_IGNORED = [(255, 0, 0), (0, 0, 0)]
DEEPGLOBE = [(0, 255, 255), (255, 255, 0), (255, 0, 255), (0, 255, 0), (0, 0, 255), (255, 255, 255)]
DEEPGLOBE_IGNORED = [(0, 0, 0)]


def facts(dataset: str, *overrides: str) -> dict[str, Any]:
    """A dataset's facts as the program composes them."""
    config = compose_config([f"dataset={dataset}", "dataset.raw=unused", *overrides])
    value = OmegaConf.to_container(config.dataset, resolve=True)
    assert isinstance(value, dict)
    return {str(key): item for key, item in value.items()}


def layout(dataset: str, *overrides: str) -> RawLayout:
    """A dataset's layout."""
    return layout_from_facts(facts(dataset, *overrides))


def raster(pixels: Pixels, driver: str = "GTiff", **profile: object) -> bytes:
    """Packs (H, W, B) uint8 as an image file."""
    height, width, bands = pixels.shape
    with warnings.catch_warnings(), MemoryFile() as memory:
        warnings.simplefilter("ignore")
        shape = {"height": height, "width": width, "count": bands, "dtype": pixels.dtype}
        with memory.open(driver=driver, **shape, **profile) as dataset:
            dataset.write(pixels.transpose(2, 0, 1))
        return bytes(memory.getbuffer())


def read_class_map(path: Path) -> Pixels:
    """A whole class map, (H, W)."""
    with open_class_map(path) as raster:
        return raster.values(0, 0, raster.grid.height, raster.grid.width)


def image(seed: int, bands: int = 3, height: int = 40, width: int = 56) -> Pixels:
    """(H, W, B) noise."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, bands), dtype=np.uint8)


def reference(
    seed: int,
    classes: list[tuple[int, int, int]],
    ignored: list[tuple[int, int, int]],
    height: int = 40,
    width: int = 56,
) -> tuple[Pixels, Pixels]:
    """(H, W, 3) random colours of a palette, and the (H, W) mask that they stand for."""
    drawn = np.random.default_rng(seed).integers(0, len(classes) + len(ignored), (height, width))
    mask = np.where(drawn < len(classes), drawn, 255).astype(np.uint8)
    return np.asarray([*classes, *ignored], dtype=np.uint8)[drawn], mask


def pack(
    files: Mapping[str, bytes], raw: Path, archive: str | None, form: Form = "zip", inside: str = ""
) -> None:
    """Puts files into a raw folder.

    Args:
        files: Contents by name.
        raw: The raw folder.
        archive: Name of the zip archive.
        form: As that archive, as its unpacked folder, or loose in the raw folder.
        inside: Folder of the archive that holds the files.
    """
    raw.mkdir(parents=True, exist_ok=True)
    if form == "zip" and archive is not None:
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target:
            for name, content in files.items():
                target.writestr(inside + name, content)
        (raw / archive).write_bytes(packed.getvalue())
        return
    folder = raw / Path(archive).stem if form == "folder" and archive is not None else raw
    for name, content in files.items():
        path = folder / inside / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
