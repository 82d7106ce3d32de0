"""An open raster file of an allowed format; damage is reported in one line."""

import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import rasterio
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader
from rasterio.windows import Window

from ome.errors import UserError
from ome.geo.beside import options_for
from ome.geo.gdal import IMAGE_DRIVERS, check_readable, jpeg_warnings, orientation, plain_pixels
from ome.geo.remote import WITHOUT_HEAD, probe, reading_options
from ome.geo.sidecars import ArchivedBytes, check_archived, check_metadata, check_sidecars, in_memory
from ome.geo.vsi import VsiPath

_CODESTREAM: Final = b"\xff\x4f\xff\x51"
_END: Final = b"\xff\xd9"
"""First and last bytes of JPEG 2000 data."""


class UnreadableError(UserError):
    """A file that is damaged, not a raster, or of another depth: a folder may hold several."""


class RasterFile:
    """An open raster: a local file, a remote or archived one that GDAL reads by windows, or bytes.

    Attributes:
        name: Its name in error messages.
        dataset: The rasterio dataset.

    Args:
        source: What to open.
        name: Its name in error messages; None for the path.
        drivers: Allowed formats, by GDAL's driver names.
        remedy: Advice for error messages about a damaged file.

    Raises:
        UnreadableError: The file is damaged, not a raster of these formats, or has several pages.
        UserError: It does not exist or cannot be reached, is stored rotated, or refers to other files.
    """

    def __init__(
        self, source: Path | VsiPath | bytes, name: str | None, drivers: Sequence[str], remedy: str
    ) -> None:
        self.name = str(source) if name is None and not isinstance(source, bytes) else str(name)
        self._remedy = remedy or "copy or download it again"
        self._options, self._refusal = dict[str, str](), ""
        self._stack = ExitStack()
        if isinstance(source, Path):
            check_readable(source, self.name, remedy or "check the path")
        start = b"" if isinstance(source, VsiPath) else source
        if isinstance(source, VsiPath):
            _, start, self._refusal = probe(source)
            self._options, self._remedy = reading_options(), remedy or "try again, or download it"
            drivers = [driver for driver in drivers if driver in IMAGE_DRIVERS]
        self.dataset = self._open(source, drivers)
        if len(pages := _images_in(self.dataset)) > 1:
            sizes = " and ".join(list(dict.fromkeys(f"{height} x {width}" for height, width in pages))[:3])
            raise UnreadableError(
                f"{self.name} holds {len(pages)} pages, of {sizes} pixels, and only the first would be read: "
                "extract each, gdal_translate GTIFF_DIR:2:IN PAGE_2.tif, and if they are bands of one "
                "image, stack them, gdal_merge.py -separate -o OUT PAGE_1.tif PAGE_2.tif"
            )
        if isinstance(source, Path):
            if self.dataset.driver == "JP2OpenJPEG" and not _is_whole_jpeg2000(source):
                raise UnreadableError(f"{self.name} is damaged, its end is missing: {self._remedy}")
            check_sidecars(source, self.dataset)
        elif isinstance(source, ArchivedBytes):
            check_archived(self.name, source, self.dataset)
        else:
            check_metadata(self.name, self.dataset)
        if "JPEG" in drivers and (exif := orientation(start)) != 1:
            raise UserError(
                f"{self.name} is stored rotated (EXIF orientation {exif}): rotate its pixels, e.g. by "
                "mogrify -auto-orient"
            )

    def close(self) -> None:
        """Closes the file."""
        self._stack.close()

    @cached_property
    def compression(self) -> str:
        """The compression, such as JPEG; the driver's name where the file does not say."""
        # Not `dataset.compression`, which does not know all of GDAL's.
        tags: dict[str, str] = self.dataset.tags(ns="IMAGE_STRUCTURE")
        return tags.get("COMPRESSION", str(self.dataset.driver)).upper()

    @property
    def depth(self) -> str:
        """Data type of the values, by numpy's name.

        Raises:
            UnreadableError: The bands have several, or complex values.
        """
        kinds = sorted(set(self.dataset.dtypes))
        if len(kinds) > 1:
            raise UnreadableError(
                f"{self.name} holds {' and '.join(kinds)} values: give a raster whose bands share a data type"
            )
        if kinds[0].startswith("complex"):
            raise UnreadableError(
                f"{self.name} holds complex values: give a raster of real ones, e.g. the real parts by "
                "gdal_translate -ot Float32 IN OUT"
            )
        return str(kinds[0])

    def read(self, window: Window, **options: Any) -> NDArray[Any]:  # noqa: ANN401 - rasterio's own
        """Reads a window, as rasterio does; see `checked`."""
        return self.checked(window, lambda: self.dataset.read(window=window, **options))

    def checked(self, window: Window, read: Callable[[], Any]) -> NDArray[Any]:
        """Calls a function that reads a window, and turns damage into an error.

        Raises:
            UnreadableError: The file is damaged there.
        """
        jpeg_warnings.reset()
        try:
            with self.environment():
                pixels: NDArray[Any] = read()
        except (RasterioError, OSError, ValueError) as error:
            raise self._damaged(window) from error
        if jpeg_warnings.damaged:
            raise self._damaged(window)
        return pixels

    def environment(self) -> AbstractContextManager[object]:
        """A context with GDAL's options, in which warnings about damaged JPEG data reach `jpeg_warnings`."""
        needed = self._options or "JPEG" in self.compression or self.dataset.driver == "VRT"
        return rasterio.Env(**self._options) if needed else nullcontext()

    def _damaged(self, window: Window) -> UnreadableError:
        rows = f"rows {window.row_off}..{window.row_off + window.height - 1}"
        columns = f"columns {window.col_off}..{window.col_off + window.width - 1}"
        return UnreadableError(f"{self.name} is damaged at {rows}, {columns}: {self._remedy}")

    def _open(self, source: Path | VsiPath | bytes, drivers: Sequence[str]) -> Any:  # noqa: ANN401 - rasterio
        try:
            with plain_pixels(), rasterio.Env(**self._options):
                options = options_for(source) if isinstance(source, Path) else {}
                path = source.path if isinstance(source, VsiPath) else str(source)
                if isinstance(source, bytes):
                    path = in_memory(source, self._stack)
                return self._stack.enter_context(DatasetReader(path, driver=list(drivers), **options))
        except (RasterioError, OSError, ValueError) as error:
            self.close()
            if "HTTP response code" in str(error) and not self._options.keys() >= WITHOUT_HEAD.keys():
                self._options |= WITHOUT_HEAD
                return self._open(source, drivers)
            formats = ", ".join(drivers)
            if self._refusal:
                raise UnreadableError(self._refusal) from error
            if isinstance(source, VsiPath):
                raise UnreadableError(
                    f"{self.name} cannot be opened as {formats} ({error}): {source.remedy}"
                ) from error
            raise UnreadableError(
                f"{self.name} is damaged or not a raster ({formats}): {self._remedy}; gdal_translate IN OUT "
                "writes other formats to a GeoTIFF"
            ) from error


def _images_in(dataset: Any) -> list[tuple[int, int]]:  # noqa: ANN401 - rasterio's own
    """Sizes of the pages of a TIFF that are not previews; overviews and masks are not pages.

    A preview has at most half the rows and half the columns of the first page, rounded up.
    """
    pages = dataset.tags(ns="SUBDATASETS") if dataset.driver == "GTiff" else {}
    texts = [re.search(r"\((\d+)P x (\d+)L x ", text) for key, text in pages.items() if key.endswith("_DESC")]
    sizes = [(int(text[2]), int(text[1])) for text in texts if text]
    return [size for size in sizes if 2 * size[0] > dataset.height + 1 or 2 * size[1] > dataset.width + 1]


def _is_whole_jpeg2000(path: Path) -> bool:
    """Whether a JPEG 2000 file has its end-of-codestream marker; GDAL reads truncated ones silently."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start, end = 0, size
        if file.read(4) != _CODESTREAM:  # boxes, one of which holds the codestream
            while start + 8 <= size:
                file.seek(start)
                length, kind = int.from_bytes(file.read(4)), file.read(4)
                length = int.from_bytes(file.read(8)) if length == 1 else length or size - start
                end = start + length
                if kind == b"jp2c" or length < 8:
                    break
                start = end
        if end > size:
            return False
        file.seek(max(end - len(_END), 0))
        return file.read(len(_END)) == _END
