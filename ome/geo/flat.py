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
"""The file that says up to which row all are whole; of a process that starts at row 512, `rows_512.json`."""


class FlatRasters:
    """Rasters of one size, each a file of bytes: band after band, row after row.

    How many rows are whole is recorded after they have reached the disk, so that a process that takes the
    folder over resumes there. Plain bytes need no repair after a kill, as a GeoTIFF would.

    Args:
        folder: Where the files `<name>.raw` and the record `rows.json` lie, or will.
        bands: Number of bands of each raster, by its name.
        height: Rows.
        width: Columns.
        rows: Those that this process writes, of several that share the folder; None for all. One process
            opens the folder before the others do.
    """

    def __init__(
        self, folder: Path, bands: Mapping[str, int], height: int, width: int, rows: range | None = None
    ) -> None:
        self._bands, self.height, self.width = dict(bands), height, width
        self.rows = range(height) if rows is None else rows
        self._folder, start = folder, self.rows.start
        self._record = folder / (RECORD if start == 0 else RECORD.replace(".", f"_{start}."))
        folder.mkdir(parents=True, exist_ok=True)
        self.paths = {name: folder / f"{name}.raw" for name in bands}
        sizes = {path: bands[name] * height * width for name, path in self.paths.items()}
        if any(not path.exists() or path.stat().st_size != sizes[path] for path in sizes):
            self._forget()  # a power cut took some of it
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
        """The first of its rows that is not whole in every raster; the end of them where all are."""
        done = self.rows.start
        # Those of an earlier call may have been shared among more processes, or fewer.
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
        """Removes its files, the records first: what is left of the others then counts for nothing."""
        self._forget()
        for path in self.paths.values():
            path.unlink(missing_ok=True)
            path.with_suffix(".vrt").unlink(missing_ok=True)  # see `ome.geo.cog`
        self._folder.rmdir()

    def _offset(self, band: int, row: int) -> int:
        return (band * self.height + row) * self.width


def rows_in(folder: Path) -> int:
    """Rows that were written into a folder of rasters so far."""
    return sum(end - start for start, end in map(_whole_rows, _records(folder)) if end > start)


def _records(folder: Path) -> list[Path]:
    return [*folder.glob(RECORD.replace(".", "*."))]


def _whole_rows(record: Path) -> tuple[int, int]:
    """From and up to which row a record says that all are whole; none where it is damaged."""
    start = record.stem.partition("_")[2]
    try:
        return int(start or 0), int(read_json(record))
    except (OSError, ValueError, TypeError):
        return 0, 0
