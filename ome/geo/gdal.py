"""How GDAL reads files from outside: formats by name, nothing filled up, damage heard."""

import logging
import os
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Final
from xml.etree import ElementTree as ET

from PIL import Image
from rasterio.errors import NotGeoreferencedWarning

os.environ.setdefault("GDAL_CACHEMAX", "64")  # MB; by default each loader worker takes 5 % of the memory
# Sidecars have the names that GDAL tries, in no other mix of capitals: `ome.geo.sidecars` checks those.
os.environ["GDAL_DISABLE_READDIR_ON_OPEN"] = "TRUE"
# Without these, PNG and JPEG files that were cut short are filled up without a word.
os.environ["GDAL_PNG_WHOLE_IMAGE_OPTIM"] = "NO"
os.environ["GDAL_ERROR_ON_LIBJPEG_WARNING"] = "YES"

IMAGE_DRIVERS: Final = ("GTiff", "PNG", "JPEG")
"""Formats of files that come from outside; all of them hold their own pixels."""

SCENE_DRIVERS: Final = (*IMAGE_DRIVERS, "JP2OpenJPEG")
"""Formats of a scene to be mapped; none of which half is read without a word when it is lost, as of HFA."""

XML_FAULTS: Final = (ET.ParseError, LookupError, ValueError)
"""What a damaged description raises; the latter two of an encoding that is unknown or not read."""

_ORIENTATION: Final = 274  # the tag's number in EXIF


class Complaints(logging.Handler):
    """Hears GDAL's warnings about damaged JPEG data within a GeoTIFF, which it reads all the same."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._thread = threading.local()

    def emit(self, record: logging.LogRecord) -> None:
        """Takes down what this thread is told of JPEG data."""
        if "JPEGLib" in record.getMessage():
            self._thread.heard = True

    def forget(self) -> None:
        """Starts anew, in this thread."""
        self._thread.heard = False

    @property
    def heard(self) -> bool:
        """Whether this thread was told of damage since."""
        return bool(self._thread.heard)


complaints: Final = Complaints()
logging.getLogger("rasterio._err").addHandler(complaints)


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a warning says more than the error that follows it; those of lost requests do not."""
    return re.search(r"HTTP response code|failed with response_code", record.getMessage()) is None


for _name in ("rasterio._err", "rasterio._env"):
    logging.getLogger(_name).addFilter(_is_news)


def orientation(source: Path | bytes) -> int:
    """How a photograph is to be turned, as its EXIF data say; 1 for not at all."""
    try:
        opened = BytesIO(source) if isinstance(source, bytes) else source
        with warnings.catch_warnings(action="ignore"), Image.open(opened) as image:
            return int(image.getexif().get(_ORIENTATION, 1))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return 1  # a raster that is no photograph


@contextmanager
def plain_pixels() -> Iterator[None]:
    """Silences the warning about images without a georeference: most public benchmarks come without one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield
