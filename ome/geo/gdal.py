"""GDAL's settings for users' files: allowed formats, no silent padding of truncated files."""

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

from ome.errors import UserError

os.environ.setdefault("GDAL_CACHEMAX", "64")  # MB; by default each loader worker takes 5 % of the memory
# GDAL then tries fixed sidecar names instead of listing the folder: `ome.geo.sidecars` checks those names.
os.environ["GDAL_DISABLE_READDIR_ON_OPEN"] = "TRUE"
# Without these, GDAL silently pads truncated PNG and JPEG files.
os.environ["GDAL_PNG_WHOLE_IMAGE_OPTIM"] = "NO"
os.environ["GDAL_ERROR_ON_LIBJPEG_WARNING"] = "YES"
for _name in ("PROJ_DATA", "PROJ_LIB"):
    # Of another program, often one that is gone: reference systems would lose their EPSG codes.
    _folders = os.environ.get(_name, "").split(os.pathsep)
    if not any(Path(folder, "proj.db").is_file() for folder in _folders):
        os.environ.pop(_name, None)

IMAGE_DRIVERS: Final = ("GTiff", "PNG", "JPEG")
"""Formats of users' images; none of them refers to other files for its pixels."""

SCENE_DRIVERS: Final = (*IMAGE_DRIVERS, "JP2OpenJPEG")
"""Formats of a scene to be mapped; not HFA, for example: GDAL reads truncated files of it silently."""

XML_FAULTS: Final = (ET.ParseError, LookupError, ValueError)
"""Exceptions of damaged XML; the latter two come from an unknown or unsupported encoding."""

# Pillow logs an error for a TIFF of many bands, whose orientation it is asked for.
logging.getLogger("PIL.TiffImagePlugin").setLevel(logging.CRITICAL)

_ORIENTATION: Final = 274  # the tag's number in EXIF


class JpegWarnings(logging.Handler):
    """Catches GDAL's warnings about damaged JPEG data in a GeoTIFF, which GDAL reads all the same."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._thread = threading.local()

    def emit(self, record: logging.LogRecord) -> None:
        """Notes a warning about JPEG data in this thread."""
        if "JPEGLib" in record.getMessage():
            self._thread.damaged = True

    def reset(self) -> None:
        """Forgets the warnings of this thread."""
        self._thread.damaged = False

    @property
    def damaged(self) -> bool:
        """Whether this thread got a warning since `reset`."""
        return bool(self._thread.damaged)


jpeg_warnings: Final = JpegWarnings()
logging.getLogger("rasterio._err").addHandler(jpeg_warnings)


def _adds_information(record: logging.LogRecord) -> bool:
    """Whether a warning says more than the error that follows it; warnings of failed requests do not."""
    return re.search(r"HTTP response code|failed with response_code", record.getMessage()) is None


for _name in ("rasterio._err", "rasterio._env"):
    logging.getLogger(_name).addFilter(_adds_information)


def orientation(source: Path | bytes) -> int:
    """The EXIF orientation of a photograph; 1 for upright, or without EXIF data."""
    try:
        opened = BytesIO(source) if isinstance(source, bytes) else source
        with warnings.catch_warnings(action="ignore"), Image.open(opened) as image:
            return int(image.getexif().get(_ORIENTATION, 1))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return 1  # not a photograph


def check_readable(path: Path, name: str, remedy: str) -> None:
    """Refuses what GDAL would wait for or call damaged.

    Args:
        path: The raster.
        name: Its name in the error message.
        remedy: What to do if it does not exist.

    Raises:
        UserError: It does not exist, is not a file, or cannot be read.
    """
    if not path.exists():
        raise UserError(f"{name} does not exist: {remedy}")
    if not path.is_file():  # a pipe
        raise UserError(f"{name} is not a file: save it as one, which is read more than once")
    if not os.access(path, os.R_OK):
        raise UserError(f"{name} cannot be read (permission denied): make it readable, e.g. by chmod u+r")


@contextmanager
def plain_pixels() -> Iterator[None]:
    """Silences the warning about images without a georeference: most public benchmarks have none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield
