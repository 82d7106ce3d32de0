"""Rasters as bands of plain bytes, written row by row, so that a killed process can resume."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ome.damage import DamagedError
from ome.files import noted, read_json, remove_temporaries, write_json

RECORD: Final = "rows.json"
"""File with the number of complete rows; a process that starts at row 512 writes `rows_512.json`."""


class FlatRasters:
    """Rasters of one size, each a file of bytes: band after band, row after row.

    The number of complete rows is recorded after they have reached the disk, so that a later process can
    resume there. Plain bytes need no repair after a kill; a GeoTIFF would.

    Args:
        folder: Folder of the files `<name>.raw` and the record `rows.json`; created if missing.
        bands: Number of bands of each raster, by name.
        height: Rows.
        width: Columns.
        rows: Rows that this process writes where several share the folder; None for all. One process must
            open the folder before the others do.
    """

    def __init__(
        self, folder: Path, bands: Mapping[str, int], height: int, width: int, rows: range | None = None
    ) -> None:
        self._bands, self.height, self.width = dict(bands), height, width
        self.rows = range(height) if rows is None else rows
        self._folder, start = folder, self.rows.start
        self._record = folder / (RECORD if start == 0 else RECORD.replace(".", f"_{start}."))
        noted(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.paths = {name: folder / f"{name}.raw" for name in bands}
        sizes = {path: bands[name] * height * width for name, path in self.paths.items()}
        if any(not path.exists() or path.stat().st_size != sizes[path] for path in sizes):
            self._forget()  # a power cut lost some of the data
        for path, size in sizes.items():
            path.touch()
            os.truncate(path, size)  # keeps existing bytes, allocates no space
        self._files = {name: os.open(path, os.O_RDWR) for name, path in self.paths.items()}

    def __enter__(self) -> "FlatRasters":
        return self

    def __exit__(self, *error: object) -> None:
        for file in self._files.values():
            os.close(file)

    @property
    def rows_done(self) -> int:
        """This process's first row that is not complete in every raster; `rows.stop` where all are."""
        done = self.rows.start
        # An earlier call may have split the rows among another number of processes.
        for start, end in sorted(map(_whole_rows, _records(self._folder))):
            if start <= done < end:
                done = end
        return min(done, self.rows.stop)

    def _forget(self) -> None:
        for record in _records(self._folder):
            record.unlink(missing_ok=True)

    def write(self, row: int, parts: Mapping[str, NDArray[np.uint8]]) -> None:
        """Writes whole rows from `row` on, which must be `rows_done`: (bands, h, W) uint8 of every raster."""
        height = 0
        for name, values in parts.items():
            height = values.shape[1]
            for band, rows in enumerate(np.ascontiguousarray(values)):
                _write_whole(self._files[name], rows.data.cast("B"), self._offset(band, row))
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
        """Removes its files, the records first: without them a partly removed folder counts as empty."""
        self._forget()
        for path in self.paths.values():
            path.unlink(missing_ok=True)
            path.with_suffix(".vrt").unlink(missing_ok=True)  # see `ome.geo.cog`
        remove_temporaries(self._folder)  # a process may have been killed while it wrote its record
        self._folder.rmdir()

    def _offset(self, band: int, row: int) -> int:
        return (band * self.height + row) * self.width


def _write_whole(file: int, data: memoryview, offset: int) -> None:
    """Writes all bytes: a call to the system may write some of them where the disk is nearly full."""
    while data:
        written = os.pwrite(file, data, offset)
        data, offset = data[written:], offset + written


def rows_in(folder: Path) -> int:
    """Number of rows written into a folder of rasters so far."""
    return sum(end - start for start, end in map(_whole_rows, _records(folder)) if end > start)


def _records(folder: Path) -> list[Path]:
    return [*folder.glob(RECORD.replace(".", "*."))]


def _whole_rows(record: Path) -> tuple[int, int]:
    """The start and end of the complete rows of a record; (0, 0) where it is damaged."""
    start = record.stem.partition("_")[2]
    try:
        return int(start or 0), read_json(record, int)
    except (OSError, ValueError, DamagedError):
        return 0, 0
