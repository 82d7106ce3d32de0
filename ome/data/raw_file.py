"""One file of a raw dataset, plain or in a zip archive.

Members are read into memory and never unpacked to disk, so a malicious name cannot write outside a folder.
"""

import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Final

from rasterio.transform import Affine

from ome.errors import UserError
from ome.geo.beside import world_transform
from ome.geo.gdal import IMAGE_DRIVERS
from ome.geo.reader import Raster
from ome.geo.sidecars import ArchivedBytes, world_files

MAX_MEMBER: Final = 4 << 30
"""Largest unpacked size of a file in bytes; the largest file of the published datasets has 144 MB."""

MAX_RATIO: Final = 1000
"""Largest compression ratio of a member above `SMALL_MEMBER` bytes; one-coloured masks come close to it."""

SMALL_MEMBER: Final = 256 << 20
"""Unpacked bytes up to which any compression ratio is accepted."""


@dataclass(frozen=True)
class RawFile:
    """One file of a raw dataset: a member of a zip archive, or a plain file.

    Attributes:
        container: The archive or the folder.
        name: Path within the container.
        size: Unpacked size in bytes.
        stamp: Checksum of an archive's member and its sidecars, or modification time of a plain file.
        sidecars: Files of an archive beside it that GDAL reads with it, see `ome.geo.sidecars`.
    """

    container: Path
    name: str
    size: int
    stamp: int
    sidecars: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.container}:{self.name}" if self.zipped else str(self.container / self.name)

    @property
    def zipped(self) -> bool:
        """Whether the file is a member of a zip archive."""
        return self.container.suffix == ".zip"

    @property
    def fingerprint(self) -> str:
        """Identity of the file's content, without reading it."""
        return f"{self.container.name}:{self.name}:{self.size}:{self.stamp}"

    def open(self, nodata: float | None = None, channels: Sequence[int] = ()) -> Raster:
        """Opens the file as a raster, to be used as a context manager.

        Args:
            nodata: Nodata value; None for the values in the file.
            channels: Bands (1-based) that count as image, never as opacity.

        Raises:
            UnreadableError: The file is damaged, or not a GeoTIFF, PNG or JPEG.
            UserError: It is too large to be read at once, or its archive is damaged or encrypted.
        """
        raster = Raster(
            self._archived() if self.zipped else self.container / self.name,
            name=str(self),
            drivers=IMAGE_DRIVERS,
            remedy="download it again",
            nodata=nodata,
            channels=channels,
            transform=self.transform(),
        )
        grid = raster.grid
        in_memory = self.zipped or not raster.by_windows
        if in_memory and grid.height * grid.width * raster.bands > MAX_MEMBER:
            raster.close()
            remedy = "unpack the archive" if raster.by_windows else "gdal_translate -co TILED=YES IN OUT.tif"
            raise UserError(
                f"{self} is {grid.width} x {grid.height} pixels, too large to be read at once: {remedy}"
            )
        return raster

    def read_bytes(self) -> bytes:
        """Reads the whole file.

        Raises:
            UserError: When the archive is damaged or encrypted.
        """
        if not self.zipped:
            return (self.container / self.name).read_bytes()
        with reading_zip(self.container):
            return _opened(self.container, self.container.stat().st_mtime_ns).read(self.name)

    def _archived(self) -> ArchivedBytes:
        beside = {PurePosixPath(name).name: RawFile(self.container, name, 0, 0) for name in self.sidecars}
        contents = {name: sidecar.read_bytes() for name, sidecar in beside.items()}
        return ArchivedBytes(self.read_bytes(), PurePosixPath(self.name).name, contents)

    def transform(self) -> Affine | None:
        """The georeference in a world file beside an archive's member; None without one."""
        worlds = world_files(PurePosixPath(self.name))
        for name in self.sidecars:
            if PurePosixPath(name).name.lower() not in worlds:
                continue
            sibling = RawFile(self.container, name, 0, 0)
            return world_transform(Path(str(sibling)), sibling.read_bytes())
        return None


@lru_cache(maxsize=8)
def _opened(path: Path, _changed: int) -> zipfile.ZipFile:
    """An open archive, cached: reading the directory of 60,000 files takes a second."""
    return zipfile.ZipFile(path)


@contextmanager
def reading_zip(path: Path) -> Iterator[None]:
    """Turns every error of reading a zip archive into one line about that archive."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise UserError(f"{path} is damaged or truncated ({error}): download it again") from error
    except (RuntimeError, NotImplementedError) as error:
        folder = path.with_suffix("")
        raise UserError(f"{path} cannot be read ({error}): unpack it by hand to {folder}/") from error


def check_expansion(path: Path, member: zipfile.ZipInfo) -> None:
    """Refuses a zip bomb, a member that would fill the memory.

    Raises:
        UserError: When it unpacks to more than `MAX_MEMBER` bytes, or to over `MAX_RATIO` times its size.
    """
    expanded = f"{path}:{member.filename} unpacks from {member.compress_size} to {member.file_size} bytes"
    if member.file_size > MAX_MEMBER:
        raise UserError(f"{expanded}: more than {MAX_MEMBER} are refused")
    if member.file_size > SMALL_MEMBER and member.file_size > MAX_RATIO * max(member.compress_size, 1):
        raise UserError(f"{expanded}: more than {MAX_RATIO} times are refused")
