"""Virtual rasters (VRT): their pixels by GDAL, and which of them are valid by the files that they read."""

import math
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Final, NamedTuple
from xml.etree import ElementTree as ET

import numpy as np
from numpy.typing import NDArray

from ome.geo.reader import Raster
from ome.geo.validity import fits
from ome.geo.virtual import DRIVER, file_of, tree_of

MAX_OPEN: Final = 64
"""Largest number of files kept open."""

_MOST_PIXELS: Final = 1 << 26
"""Pixels of a file whose validity is read at a time, where the VRT is coarser than the file."""

_Rect = tuple[float, float, float, float]
"""First row and column, rows, columns; they need not be whole."""


class _Source(NamedTuple):
    """A file that a band reads: which band of it, and from where to where.

    `nodata` is the value that is left out, `is_plain` whether values are kept as they are, and `see_through`
    whether what lies below is seen where the file is invalid.
    """

    path: Path
    band: int
    read: _Rect | None
    placed: _Rect | None
    nodata: float | None
    is_plain: bool
    see_through: bool


class VirtualRaster(Raster):
    """A virtual raster: a pixel is also invalid where no file that it reads is valid.

    Args:
        path: The VRT; `ome.geo.virtual.check_virtual` must have accepted it.
        channels: Bands in use, see `Raster`.
        nodata: Nodata value, see `Raster`; of the files too, unless the VRT changes their values.

    Raises:
        UserError: See `Raster`.
    """

    def __init__(self, path: Path, *, channels: Sequence[int] = (), nodata: float | None = None) -> None:
        super().__init__(path, drivers=(DRIVER,), channels=channels, nodata=nodata)
        self._bands, self._typed = list(_bands_of(path)), nodata
        self._open: dict[Path, Raster] = {}

    def close(self) -> None:
        """Closes the VRT and its files."""
        self._close_files()
        super().close()

    @cached_property
    def all_valid(self) -> bool:
        """False: validity must always be read."""
        return False

    @property
    def _read_bands(self) -> Sequence[int]:
        """The bands (1-based) of the VRT that hold the image."""
        return (1,) if self.has_colour_table else self.shown_bands

    def valid(self, row: int, column: int, height: int, width: int) -> NDArray[np.bool_]:
        """See `Raster.valid`."""
        covered = np.zeros((height, width), dtype=bool)
        for band in self._read_bands:
            covered |= self._covered(self._bands[band - 1], row, column, covered.shape)
            if covered.all():
                break
        return covered & super().valid(row, column, height, width)

    def _covered(
        self, sources: Sequence[_Source], row: int, column: int, shape: tuple[int, ...]
    ) -> NDArray[np.bool_]:
        """Where a band has values of valid pixels, in a window of that shape; a later file lies above."""
        covered = np.zeros(shape, dtype=bool)
        for source in sources:
            whole = (0.0, 0.0, float(self.grid.height), float(self.grid.width))
            top, left, rows, columns = source.placed or whole
            ours = _pixels(top, rows, row, shape[0]), _pixels(left, columns, column, shape[1])
            if not (ours[0].size and ours[1].size):
                continue
            raster = self._raster(source)
            first, start, height, width = source.read or (0.0, 0.0, *map(float, _size(raster)))
            theirs = (
                np.floor(first + (ours[0] + 0.5 - top) * height / rows).astype(int),
                np.floor(start + (ours[1] + 0.5 - left) * width / columns).astype(int),
            )
            inside = [(at >= 0) & (at < size) for at, size in zip(theirs, _size(raster), strict=True)]
            place = np.ix_(ours[0][inside[0]] - row, ours[1][inside[1]] - column)
            part = _valid_at(raster, theirs[0][inside[0]], theirs[1][inside[1]])
            covered[place] = part | covered[place] if source.see_through else part
        return covered

    def _raster(self, source: _Source) -> Raster:
        if source.path not in self._open:
            if len(self._open) >= MAX_OPEN:
                self._close_files()
            used = (one for band in self._read_bands for one in self._bands[band - 1])
            bands = sorted({one.band for one in used if one.path == source.path})
            raster = Raster(source.path, channels=bands)
            if (nodata := self._nodata_of(source, raster)) is not None and fits(nodata, raster.depth):
                raster.close()
                raster = Raster(source.path, channels=bands, nodata=nodata)
            self._open[source.path] = raster
        return self._open[source.path]

    def _nodata_of(self, source: _Source, raster: Raster) -> float | None:
        """The nodata value of a file, if not its own: as typed, else of the source, else of the VRT."""
        if self._typed is not None and source.is_plain:
            return self._typed
        if source.nodata is not None:
            return source.nodata
        ours = set(self.nodata)
        return ours.pop() if source.is_plain and set(raster.nodata) == {None} and len(ours) == 1 else None

    def _close_files(self) -> None:
        while self._open:
            self._open.popitem()[1].close()


def _size(raster: Raster) -> tuple[int, int]:
    return raster.grid.height, raster.grid.width


def _pixels(start: float, length: float, first: int, count: int) -> NDArray[np.int64]:
    """The pixels of `first` and `count` whose centres lie between a start and its end, along one axis."""
    begin = max(math.ceil(start - 0.5), first)
    return np.arange(begin, max(begin, min(math.ceil(start + length - 0.5), first + count)))


def _valid_at(raster: Raster, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which pixels of some rows and columns of a file are valid, (rows, columns)."""
    valid = np.zeros((len(rows), len(columns)), dtype=bool)
    if not valid.size:
        return valid
    left, width = int(columns.min()), int(np.ptp(columns)) + 1
    pieces = min(len(rows), 1 + (int(np.ptp(rows)) + 1) * width // _MOST_PIXELS)
    for part in np.array_split(np.arange(len(rows)), pieces):
        top, height = int(rows[part].min()), int(np.ptp(rows[part])) + 1
        window = raster.valid(top, left, height, width)
        valid[part] = window[np.ix_(rows[part] - top, columns - left)]
    return valid


def _bands_of(path: Path) -> Iterator[list[_Source]]:
    """The sources of each band, from bottom to top."""
    for band in tree_of(path):
        if band.tag.lower() == "vrtrasterband":
            yield [_source(path, node) for node in band if node.tag.lower().endswith("source")]


def _source(path: Path, node: ET.Element) -> _Source:
    parts = {child.tag.lower(): child for child in node}
    number = (parts["sourceband"].text or "") if "sourceband" in parts else "1"
    mask = parts.get("usemaskband")
    return _Source(
        file_of(path, parts["sourcefilename"])[1],
        int(number) if number.strip().isdigit() else 0,
        _rect(parts.get("srcrect")),
        _rect(parts.get("dstrect")),
        float(parts["nodata"].text or "nan") if "nodata" in parts else None,
        not parts.keys() & {"lut", "scaleoffset", "scaleratio", "exponent", "colortablecomponent"},
        "nodata" in parts or (mask is not None and (mask.text or "").strip().lower() in {"true", "1", "yes"}),
    )


def _rect(node: ET.Element | None) -> _Rect | None:
    if node is None:
        return None
    values = {key.lower(): float(value) for key, value in node.items()}
    return values["yoff"], values["xoff"], values["ysize"], values["xsize"]
