"""What a file says that its bands show, and what follows for an image or a mask."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasterio.io import DatasetReader

BAND_COLOURS: Final = ("red", "green", "blue", "nir")
"""What a file may say that a band shows."""

LOSSLESS: Final = ("GTIFF", "PNG", "NONE", "LZW", "DEFLATE", "ZSTD", "LZMA", "PACKBITS")
"""Compressions, and formats without one, that keep every value, by GDAL's names; so do those of faxes."""


def labelled_colours(dataset: DatasetReader) -> tuple[str, ...]:
    """One of `BAND_COLOURS` for each band, by its description or its label; empty if unknown."""
    try:
        descriptions: Sequence[str | None] = dataset.descriptions
    except UnicodeDecodeError:  # rasterio reads UTF-8 alone
        descriptions = [None] * dataset.count
    pairs = zip(descriptions, dataset.colorinterp, strict=True)
    words = [((text or "").strip().casefold(), kind.name) for text, kind in pairs]
    return tuple(next((word for word in pair if word in BAND_COLOURS), "") for pair in words)


def labelled_opacity(dataset: DatasetReader) -> list[int]:
    """The bands (1-based) labelled alpha, which may hold an image: see `ome.geo.opacity`."""
    kinds = enumerate(dataset.colorinterp, start=1)
    return [band for band, kind in kinds if kind == ColorInterp.alpha]


def is_indexed(dataset: DatasetReader) -> bool:
    """Whether the first band holds indices into a colour table, and any other one opacity."""
    first, *others = dataset.colorinterp
    return first == ColorInterp.palette and set(others) <= {ColorInterp.alpha}


def grey_step(dataset: DatasetReader) -> int:
    """What values of 1, 2 or 4 bits are multiplied by, so that the largest is white (255); 1 for others."""
    steps = {"1": 255, "2": 85, "4": 17} if dataset.dtypes[0] == "uint8" else {}
    return steps.get(dataset.tags(1, ns="IMAGE_STRUCTURE").get("NBITS", ""), 1)


def depth_fault(depth: str, depths: Sequence[str]) -> str:
    """Why values of a depth are not those of an image, or of a class map, of other ones, with a remedy.

    `gdal_translate -scale` without limits stretches each file by its own values, and to 255. With them, it
    writes the nodata value of `-a_nodata` where the file has its own, and into nan and values below MIN.
    """
    fault = f"{depth} values, only {' and '.join(depths)} are supported: convert it, "
    if "uint16" not in depths:
        return f"{fault}gdal_translate -ot Byte IN OUT, if its values are classes"
    if np.dtype(depth).kind in "iu":
        fault += "gdal_translate -ot UInt16 IN OUT if all values but nodata are from 1 to 65535, otherwise "
    return (
        f"{fault}gdal_translate -ot UInt16 -scale MIN MAX 1 65535 -a_nodata 0 IN OUT, where MIN and MAX are "
        "the same for all files: their least and largest value"
    )


def colour_fault(dataset: DatasetReader) -> str:
    """Why the values of an image mean other colours than they seem to, with a remedy, or empty."""
    indexed = is_indexed(dataset)
    if not indexed and ColorInterp.palette in dataset.colorinterp:
        return (
            "indices into a colour table beside other bands, where it is not applied: keep them alone, "
            "gdal_translate -b 1 IN OUT"
        )
    if indexed and dataset.dtypes[0] != "uint8":
        return (
            f"{dataset.dtypes[0]} indices into a colour table, which is applied to uint8 alone: convert it, "
            "gdal_translate -ot Byte IN OUT"
        )
    if not indexed and dataset.tags(ns="IMAGE_STRUCTURE").get("MINISWHITE") == "YES":
        largest = np.iinfo(dataset.dtypes[0]).max
        return (
            "a negative, whose 0 is white (MINISWHITE): convert it, gdal_translate -co "
            f"PHOTOMETRIC=MINISBLACK -scale 0 {largest} {largest} 0 IN OUT"
        )
    return ""


def mask_fault(dataset: DatasetReader, compression: str) -> str:
    """Why the values of a mask may not be the classes that were meant, with a remedy, or empty.

    Args:
        dataset: The mask.
        compression: Its compression, by GDAL's name.
    """
    if compression not in LOSSLESS and not compression.startswith("CCITT"):
        lossy = f"is compressed as {compression}, which may be lossy"  # the file does not tell
        if compression in {"JPEG", "YCBCR JPEG"}:
            lossy = f"has lossy compression ({compression}), which changes classes"
        return f"{lossy}: give the mask as PNG, or as GeoTIFF with DEFLATE or LZW"
    if dataset.tags(ns="IMAGE_STRUCTURE").get("MINISWHITE") == "YES":
        return (
            "is a negative (MINISWHITE), whose values some programs read as they are and others inverted: "
            "gdal_translate -co PHOTOMETRIC=MINISBLACK IN OUT keeps them, with -scale 0 1 1 0 it inverts"
        )
    if {*dataset.scales} != {1.0} or {*dataset.offsets} != {0.0}:
        return (
            f"says that other values are meant (scale {dataset.scales[0]:g}, offset {dataset.offsets[0]:g}): "
            "gdal_translate -unscale IN OUT computes them, gdal_edit -scale 1 -offset 0 MASK keeps what is "
            "stored"
        )
    return ""


def colour_table(dataset: DatasetReader) -> NDArray[np.uint8]:
    """The colour (256, 3) of each value; a value without one gets that grey level."""
    table = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
    for value, colour in dataset.colormap(1).items():
        table[value] = colour[:3]
    return table
