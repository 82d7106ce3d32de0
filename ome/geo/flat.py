"""Rasters in the making: bands of plain bytes that are written row by row and outlive a killed process."""

import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ome.files import read_json, write_json

RECORD: Final = "rows.json"
"""The file that says how many rows are whole."""


class FlatRasters:
    """Rasters of one size, each a file of bytes: band after band, row after row.

    How many rows are whole is recorded after they have reached the disk, so that a process that takes the
    folder over resumes there. Plain bytes need no repair after a kill, as a GeoTIFF would.

    Args:
        folder: Where the files `<name>.raw` and the record `rows.json` lie, or will.
        bands: Number of bands of each raster, by its name.
        height: Rows.
        width: Columns.
    """

    def __init__(self, folder: Path, bands: Mapping[str, int], height: int, width: int) -> None:
        self._bands, self.height, self.width = dict(bands), height, width
        self._record = folder / RECORD
        folder.mkdir(parents=True, exist_ok=True)
        self.paths = {name: folder / f"{name}.raw" for name in bands}
        sizes = {path: bands[name] * height * width for name, path in self.paths.items()}
        if self._rows() is None or any(
            not path.exists() or path.stat().st_size != sizes[path] for path in sizes
        ):
            self._record.unlink(missing_ok=True)  # a power cut took some of it
        for path, size in sizes.items():
            path.touch()
            os.truncate(path, size)  # keeps what is there, takes no space ahead
        self._files = {name: os.open(path, os.O_RDWR) for name, path in self.paths.items()}

    def __enter__(self) -> "FlatRasters":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files.values():
            os.close(file)

    @property
    def rows_done(self) -> int:
        """Rows that are whole in every raster."""
        return self._rows() or 0

    def _rows(self) -> int | None:
        """What the record says; None where there is none, or it is damaged."""
        try:
            return int(read_json(self._record))
        except (OSError, ValueError, TypeError):
            return None

    def write(self, row: int, parts: Mapping[str, NDArray[np.uint8]]) -> None:
        """Writes whole rows from `row` on, which must be `rows_done`: (bands, h, W) uint8 of every raster."""
        height = 0
        for name, values in parts.items():
            height = values.shape[1]
            for band, rows in enumerate(np.ascontiguousarray(values)):
                os.pwrite(self._files[name], rows.data, self._offset(band, row))
            os.fsync(self._files[name])
        write_json(self._record, row + height)

    def read(self, name: str, row: int, height: int) -> NDArray[np.uint8]:
        """Reads `height` rows from `row` on: (bands, height, W) uint8."""
        size = height * self.width
        parts = [
            os.pread(self._files[name], size, self._offset(band, row)) for band in range(self._bands[name])
        ]
        return np.frombuffer(b"".join(parts), np.uint8).reshape(len(parts), height, self.width)

    def discard(self) -> None:
        """Removes its files, the record first: what is left of the others then counts for nothing."""
        for path in (self._record, *self.paths.values()):
            path.unlink(missing_ok=True)
            path.with_suffix(".vrt").unlink(missing_ok=True)  # see `ome.geo.cog`
        self._record.parent.rmdir()

    def _offset(self, band: int, row: int) -> int:
        return (band * self.height + row) * self.width
