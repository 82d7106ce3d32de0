"""Files beside a raster that change what GDAL reads from it."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePath
from typing import Any, Final
from uuid import uuid4
from xml.etree import ElementTree as ET

from rasterio.errors import RasterioError
from rasterio.io import DatasetReader, MemoryFile

from ome.errors import UserError
from ome.files import is_file
from ome.geo.beside import is_of_erdas, world_transform
from ome.geo.gdal import XML_FAULTS, check_readable, plain_pixels

_RASTERS: Final = (".msk", ".MSK", ".ovr", ".OVR")
"""Endings of the sidecars that GDAL opens with any driver; it writes GeoTIFFs."""


class ArchivedBytes(bytes):
    """The content of a raster in an archive.

    Attributes:
        name: Its file name.
        sidecars: Contents of the files beside it that GDAL reads with it, by file name.
    """

    name: str
    sidecars: Mapping[str, bytes]

    def __new__(cls, content: bytes, name: str, sidecars: Mapping[str, bytes]) -> "ArchivedBytes":
        """Copies the content."""
        result = super().__new__(cls, content)
        result.name, result.sidecars = name, sidecars
        return result


def in_memory(content: bytes, stack: ExitStack) -> str:
    """GDAL's path of a raster's bytes in memory, with their sidecars, until the stack is closed."""
    if not isinstance(content, ArchivedBytes):
        return str(stack.enter_context(MemoryFile(content)).name)
    folder = uuid4().hex
    for name, sidecar in content.sidecars.items():
        stack.enter_context(MemoryFile(sidecar, dirname=folder, filename=name))
    return str(stack.enter_context(MemoryFile(content, dirname=folder, filename=content.name)).name)


def world_files(raster: PurePath) -> list[str]:
    """Names in lower case of the files that may hold the georeference of an image."""
    kind, stem = raster.suffix[1:].lower(), raster.stem.lower()
    return [f"{stem}.{end}" for end in sorted({f"{kind[:1]}{kind[-1:]}w", f"{kind}w", "wld"})]


def sidecar_names(raster: PurePath) -> list[str]:
    """Names in lower case of the files that may change a raster; not of its overviews."""
    names = [raster.name.lower() + end for end in (".aux.xml", ".msk", ".aux")]
    return [*names, *world_files(raster), *(f"{raster.stem.lower()}.{end}" for end in ("aux", "tab"))]


def sidecars_of(raster: Path, siblings: Mapping[str, Path]) -> list[Path]:
    """The files beside a raster that change its pixels, validity or georeference; not its overviews.

    Args:
        raster: The raster.
        siblings: The files of its folder, by name in lower case.
    """
    paths = [siblings[name] for name in sidecar_names(raster) if name in siblings]
    return [path for path in paths if is_file(path) and _is_relevant(path)]


def check_sidecars(raster: Path, dataset: Any) -> None:  # noqa: ANN401 - rasterio's own
    """Refuses a raster whose sidecars or metadata make GDAL read other files.

    Args:
        raster: The raster.
        dataset: The same, opened, but no pixels, mask or overview read yet: GDAL opens sidecars then.

    Raises:
        UserError: A mask or overviews are not a GeoTIFF, or refer to other files; a sidecar is a link to a
            file that does not exist, or a world file without a place, which GDAL ignores.
    """
    check_metadata(str(raster), dataset)
    # GDAL does not list the folder (see ome.geo.gdal), so it tries only these names.
    is_file(raster.with_name(raster.name + ".aux.xml"))
    ends = (name[len(raster.stem) :] for name in world_files(raster))
    for world in (raster.with_name(raster.stem + end) for name in ends for end in (name, name.upper())):
        # GDAL ignores what it cannot read, and the image would have no place.
        if is_file(world) and dataset.transform.is_identity and not world_transform(world).is_identity:
            raise UserError(f"{world} does not place {raster.name}: give pixels a width and height above 0")
    for path in (raster.with_name(raster.name + ending) for ending in _RASTERS):
        if is_file(path):
            check_readable(path, str(path), "restore it")
            with _sidecar(str(path), str(path), raster.name) as sidecar:
                check_sidecars(path, sidecar)
                _check_mask(str(path), sidecar, dataset)


def check_archived(name: str, raster: ArchivedBytes, dataset: Any) -> None:  # noqa: ANN401 - rasterio's own
    """Does what `check_sidecars` does, for a raster of this name in an archive."""
    check_metadata(name, dataset)
    for sidecar, content in raster.sidecars.items():
        if sidecar.endswith(_RASTERS):
            with MemoryFile(content) as file, _sidecar(file.name, sidecar, name) as opened:
                check_metadata(sidecar, opened)
                _check_mask(sidecar, opened, dataset)


@contextmanager
def _sidecar(path: str, name: str, raster: str) -> Iterator[Any]:
    """Opens a sidecar of a raster that must be a GeoTIFF; both names are those in the message."""
    try:
        with plain_pixels(), DatasetReader(path, driver=["GTiff"]) as opened:
            yield opened
    except (RasterioError, OSError) as error:
        raise UserError(
            f"{name}, a sidecar of {raster}, is damaged or not a GeoTIFF: delete or rename it"
        ) from error


def _check_mask(name: str, sidecar: Any, dataset: Any) -> None:  # noqa: ANN401
    """Refuses a mask that GDAL ignores, or reads as damage of its raster.

    Raises:
        UserError: It does not say which bands it masks, or is of another size.
    """
    if not name.lower().endswith(".msk"):
        return
    if (sidecar.height, sidecar.width) != (dataset.height, dataset.width):
        fault = (
            f"is {sidecar.width} x {sidecar.height} pixels, and the image {dataset.width} x {dataset.height}"
        )
    elif "INTERNAL_MASK_FLAGS_1" not in sidecar.tags():
        fault = "has no tag INTERNAL_MASK_FLAGS_1, without which GDAL ignores it (2: for all bands)"
    else:
        return
    raise UserError(f"{name} {fault}: correct it, or delete or rename it")


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
    if path.suffix.lower() == ".aux":
        return is_of_erdas(path)
    if path.suffix.lower() != ".xml":
        return True
    try:
        root = ET.fromstring(path.read_bytes())  # noqa: S314 - only tags are looked at
    except XML_FAULTS:
        return True
    bands = {child.tag for node in root for child in node if node.tag == "PAMRasterBand"}
    return any(node.tag != "PAMRasterBand" for node in root) or not bands <= {"Histograms", "Metadata"}
