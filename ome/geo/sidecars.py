"""Files beside a raster that change what GDAL reads from it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree as ET

from rasterio.errors import RasterioError
from rasterio.io import DatasetReader

from ome.errors import UserError
from ome.geo.gdal import XML_FAULTS, plain_pixels

_RASTERS: Final = (".msk", ".MSK", ".ovr", ".OVR")
"""Endings of the sidecars that GDAL opens with any driver; it writes GeoTIFFs."""

_ERDAS: Final = b"EHFA_HEADER_TAG"


def sidecars_of(raster: Path, siblings: Mapping[str, Path]) -> list[Path]:
    """The files beside a raster that change its pixels, validity or georeference; not its overviews.

    Args:
        raster: The raster.
        siblings: The files of its folder, by name in lower case.
    """
    kind = raster.suffix[1:].lower()
    world = {f"{kind[:1]}{kind[-1:]}w", f"{kind}w", "wld"}
    names = [raster.name + end for end in (".aux.xml", ".msk", ".aux")]
    names += [f"{raster.stem}.{end}" for end in sorted({*world, "tab", "aux"})]
    paths = [siblings[name.lower()] for name in names if name.lower() in siblings]
    return [path for path in paths if _is_relevant(path)]


def check_sidecars(raster: Path, dataset: Any) -> None:  # noqa: ANN401 - rasterio's own
    """Refuses a raster whose sidecars or metadata make GDAL read other files.

    Args:
        raster: The raster.
        dataset: The same, opened, but no pixels, mask or overview read yet: GDAL opens sidecars then.

    Raises:
        UserError: A mask or overviews are not a GeoTIFF, or refer to other files.
    """
    check_metadata(str(raster), dataset)
    # GDAL does not list the folder (see ome.geo.gdal), so it tries only these names.
    for path in (raster.with_name(raster.name + ending) for ending in _RASTERS):
        if not path.is_file():
            continue
        try:
            with plain_pixels(), DatasetReader(str(path), driver=["GTiff"]) as sidecar:
                check_sidecars(path, sidecar)
        except (RasterioError, OSError) as error:
            raise UserError(
                f"{path}, a sidecar of {raster.name}, is damaged or not a GeoTIFF: delete or rename it"
            ) from error


def check_metadata(name: str, dataset: Any) -> None:  # noqa: ANN401 - rasterio's own
    """Refuses an open raster whose metadata, in the file or in its .aux.xml, name a file of overviews.

    Raises:
        UserError: They name one.
    """
    if overviews := dataset.tags(ns="OVERVIEWS"):
        raise UserError(
            f"{name} or its .aux.xml takes its overviews from {next(iter(overviews.values()))!r}: delete the "
            ".aux.xml, or rewrite the raster, gdal_translate IN OUT"
        )


def _is_relevant(path: Path) -> bool:
    """Whether a sidecar changes what GDAL reads; the statistics that viewers write do not."""
    if path.suffix.lower() == ".aux":  # TeX has such files too
        with path.open("rb") as file:
            return file.read(len(_ERDAS)) == _ERDAS
    if path.suffix.lower() != ".xml":
        return True
    try:
        root = ET.fromstring(path.read_bytes())  # noqa: S314 - only tags are looked at
    except XML_FAULTS:
        return True
    bands = {child.tag for node in root for child in node if node.tag == "PAMRasterBand"}
    return any(node.tag != "PAMRasterBand" for node in root) or not bands <= {"Histograms", "Metadata"}
