"""Writes the regions of a class map as a GeoPackage."""

import datetime as dt
import errno
import os
import re
import shutil
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np
from rasterio.crs import CRS
from rasterio.transform import Affine

from ome.files import atomic_path
from ome.geo.grid import RGB
from ome.geo.polygons import Region
from ome.geo.styles import region_style

VERSION: Final = {"VERSION": "1.2"}
"""Version of the GeoPackage format: newer ones add nothing for polygons, and older GDAL warns of them."""


def write_regions(
    path: Path,
    batches: Iterable[Sequence[Region]],
    names: Sequence[str],
    colours: Sequence[RGB],
    crs: CRS | None,
    transform: Affine,
    tolerance: float,
    unit: str,
) -> int:
    """Writes a polygon for each region, with class, area before simplification, and mean confidence.

    Args:
        path: The GeoPackage to write; its layer has the file's stem as name, see `layer_name`.
        batches: The regions; each batch is written before the next is taken.
        names: Class names in order of index.
        colours: RGB of each class, 0..255, for the style of QGIS.
        crs: Coordinate reference system, if any.
        transform: Pixel to world coordinates.
        tolerance: See `Region.outline`.
        unit: Unit of the areas; their column is `area_<unit>`.

    Returns:
        The number of polygons.

    Raises:
        OSError: The disk is full.
    """
    import pyogrio.raw  # noqa: PLC0415 - part of an extra
    import shapely  # noqa: PLC0415

    count, layer = 0, layer_name(path)
    with (
        atomic_path(path) as temporary,
        _plain_path(temporary) as plain,
        _reporting_disk(path),
        warnings.catch_warnings(),
    ):
        # An image without georeference has no CRS.
        warnings.filterwarnings("ignore", message="'crs' was not provided")
        for number, batch in enumerate(batches):
            outlines = [region.outline(transform, tolerance) for region in batch]
            values = {
                "class": np.array([names[region.class_index] for region in batch], dtype=object),
                f"area_{unit}": np.array([region.area for region in batch], dtype=np.float64),
                "confidence": np.array([region.confidence / region.pixels for region in batch], np.float64),
            }
            if batch or number == 0:
                pyogrio.raw.write(
                    plain,
                    np.array(shapely.to_wkb(outlines), dtype=object),
                    list(values.values()),
                    list(values),
                    layer=layer,
                    driver="GPKG",
                    geometry_type="Polygon",
                    crs=crs.to_wkt() if crs is not None else None,
                    append=number > 0,
                    dataset_options=VERSION,
                )
            count += len(batch)
        _write_style(plain, layer, region_style(names, colours, "class"))
    return count


def layer_name(path: Path) -> str:
    """The file's stem, with `map_` before it where a GeoPackage cannot have a layer of that name."""
    is_possible = re.match(r"(?!gpkg|sqlite_|layer_styles$)\w", path.stem, re.IGNORECASE)
    return path.stem if is_possible else f"map_{path.stem}"


@contextmanager
def _plain_path(path: Path) -> Iterator[Path]:
    """A path of the file for pyogrio, which takes `!` and `;` for an address and writes elsewhere."""
    if not set(str(path)) & set("!;?"):
        yield path
        return
    with TemporaryDirectory() as folder:
        link = Path(folder, f"map{path.suffix}")
        link.symlink_to(path.absolute())
        yield link


@contextmanager
def _reporting_disk(path: Path) -> Iterator[None]:
    """Turns errors of SQLite that a full disk causes, which pyogrio passes on as text, into an OSError."""
    try:
        yield
    except RuntimeError as error:
        # A table that did not fit is reported as missing.
        words = ("disk is full", "disk I/O error", "commit transaction")
        is_full = shutil.disk_usage(path.parent).free < (1 << 20)
        if not is_full and not any(word in str(error) for word in words):
            raise
        number = errno.EIO if "I/O" in str(error) and not is_full else errno.ENOSPC
        raise OSError(number, os.strerror(number), str(path)) from error


def _write_style(path: Path, layer: str, style: str) -> None:
    """Adds the table from which QGIS reads the style of a GeoPackage's layer."""
    import pyogrio.raw  # noqa: PLC0415 - part of an extra

    today = dt.datetime.now(tz=dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
    names = (
        *("f_table_catalog", "f_table_schema", "f_table_name", "f_geometry_column", "styleName", "styleQML"),
        *("styleSLD", "description", "owner", "ui", "update_time"),
    )
    values = dict.fromkeys(names, "") | {"f_table_name": layer, "f_geometry_column": "geom"}
    values |= {"styleName": layer, "styleQML": style, "update_time": today}
    columns = {name: np.array([value], dtype=object) for name, value in values.items()}
    columns["useAsDefault"] = np.array([True])
    pyogrio.raw.write(
        path,
        None,
        list(columns.values()),
        list(columns),
        layer="layer_styles",
        driver="GPKG",
        geometry_type=None,
        append=True,
    )
