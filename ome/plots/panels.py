"""Pictures side by side: what the pipeline makes of a tile, and where each class is seen."""

import math
import string
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

RGB = tuple[int, int, int]
Mask = NDArray[np.uint8]

TILE_INCHES: Final = 1.9
GREY: Final = "#888888"
SMALLEST_LETTERED: Final = 0.01
"""Share of a tile that a class must cover to be lettered in it."""


@dataclass(frozen=True, eq=False)
class PanelRow:
    """One tile of a panel; what is None stays blank.

    Attributes:
        title: The tile's name.
        image: (H, W, 3) uint8.
        cam_argmax: (H, W) class indices or 255.
        pseudo_mask: (H, W) class indices or 255.
        weight: (H, W) uint8, 255 where the pseudo mask is certain.
        prediction: (H, W) class indices or 255.
        reference: (H, W) class indices or 255.
    """

    title: str
    image: NDArray[np.uint8]
    cam_argmax: Mask | None = None
    pseudo_mask: Mask | None = None
    weight: Mask | None = None
    prediction: Mask | None = None
    reference: Mask | None = None


COLUMNS: Final = {
    "image": "image",
    "cam_argmax": "CAM argmax",
    "pseudo_mask": "pseudo mask",
    "weight": "weight\n(white: certain)",
    "prediction": "prediction",
    "reference": "reference",
}
"""Title of each column of a panel, by the field of `PanelRow` it shows."""


def panel_figure(rows: Sequence[PanelRow], names: Sequence[str], colours: Sequence[RGB]) -> Figure:
    """Tiles from image to reference, one row each; a column that no row fills is left out.

    Each class is told by its colour and, for readers who cannot tell colours apart, by a letter.

    Args:
        rows: The tiles.
        names: Class names in order of index.
        colours: RGB of each class, 0..255.

    Raises:
        ValueError: There is no row.
    """
    if not rows:
        raise ValueError("a panel needs at least one row")
    columns = [field for field in COLUMNS if any(getattr(row, field) is not None for row in rows)]
    legend_columns = min(len(names) + 1, len(columns))
    legend_rows = math.ceil((len(names) + 1) / legend_columns)
    size = TILE_INCHES * len(columns) + 0.4, TILE_INCHES * len(rows) + 0.45 + 0.19 * legend_rows
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(rows), len(columns), squeeze=False)
    for line, row in zip(grid, rows, strict=True):
        for axes, field in zip(line, columns, strict=True):
            _show_field(axes, field, getattr(row, field), colours)
        line[0].set_ylabel(row.title, fontsize=7)
    for axes, field in zip(grid[0], columns, strict=True):
        axes.set_title(COLUMNS[field], fontsize=9)
    patches = [
        Patch(facecolor=_unit(colour), edgecolor=GREY, label=f"{letter_of(index)}  {name}")
        for index, (name, colour) in enumerate(zip(names, colours, strict=True))
    ]
    patches.append(Patch(facecolor="black", edgecolor=GREY, label="no class"))
    figure.legend(
        handles=patches,
        loc="outside lower center",
        ncols=legend_columns,
        fontsize=8,
        frameon=False,
    )
    return figure


def cam_panel_figure(
    image: NDArray[np.uint8], maps: NDArray[np.float32], tags: NDArray[np.uint8], names: Sequence[str]
) -> Figure:
    """A tile and, for each class present, the tile under that class's activation map.

    Args:
        image: (H, W, 3) uint8.
        maps: (C, H, W) in [0, 1].
        tags: (C,) of 0 and 1.
        names: Class names in order of index.
    """
    present = np.flatnonzero(tags).tolist()
    figure = Figure(figsize=(TILE_INCHES * (len(present) + 1) + 0.6, TILE_INCHES + 0.3), layout="constrained")
    grid = figure.subplots(1, len(present) + 1, squeeze=False)[0]
    grid[0].imshow(image)
    grid[0].set_title("image", fontsize=9)
    grey = image.mean(axis=-1)
    for axes, index in zip(grid[1:], present, strict=True):
        axes.imshow(grey, cmap="gray", vmin=0, vmax=255)
        # Where a map says nothing, the picture below stays visible.
        opacity = np.clip(0.3 + maps[index], 0, 0.75)
        heat = axes.imshow(maps[index], cmap="inferno", vmin=0, vmax=1, alpha=opacity)
        axes.set_title(names[index], fontsize=9)
    for axes in grid:
        _bare(axes)
    if len(present):
        bar = figure.colorbar(heat, ax=list(grid), shrink=0.85, pad=0.01, aspect=16)
        bar.ax.tick_params(labelsize=7)
    return figure


def letter_spots(region: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Pixels well inside the parts of a region, far enough apart for a letter each.

    The first is where the surrounding square, a quarter of the tile wide, holds most of the region; others
    follow as long as more than half of their square is region.

    Args:
        region: (H, W), true somewhere.

    Returns:
        Rows and columns of at least one pixel of the region.
    """
    size = max(region.shape)
    reach = max(size // 8, 1)
    inside = np.where(region, _box_sum(region, reach), 0)
    rows, columns = np.ogrid[: region.shape[0], : region.shape[1]]
    spots: list[tuple[int, int]] = []
    while True:
        row, column = divmod(int(inside.argmax()), region.shape[1])
        if spots and inside[row, column] < 0.5 * (2 * reach + 1) ** 2:
            return spots
        spots.append((row, column))
        inside[np.hypot(rows - row, columns - column) < 0.4 * size] = 0


def _box_sum(region: NDArray[np.bool_], reach: int) -> NDArray[np.int64]:
    """Pixels of the region within `reach` rows and columns of each pixel."""
    sums = (
        np.pad(region, ((reach + 1, reach), (reach + 1, reach)))
        .astype(np.int64)
        .cumsum(axis=0)
        .cumsum(axis=1)
    )
    side = 2 * reach + 1
    box: NDArray[np.int64] = (
        sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    )
    return box


def _show_field(axes: Axes, field: str, values: NDArray[np.uint8] | None, colours: Sequence[RGB]) -> None:
    _bare(axes)
    if values is None:
        axes.spines[:].set_visible(False)
    elif field in {"image", "weight"}:
        axes.imshow(values, cmap="gray", vmin=0, vmax=255)
    else:
        _show_mask(axes, values, colours)


def _show_mask(axes: Axes, mask: Mask, colours: Sequence[RGB]) -> None:
    """Class colours, black elsewhere, and each class's letter inside its larger parts."""
    table = np.zeros((256, 3), dtype=np.uint8)
    table[: len(colours)] = colours
    axes.imshow(table[mask], interpolation="nearest")
    for index in range(len(colours)):
        region = mask == index
        if region.mean() < SMALLEST_LETTERED:
            continue
        outline = [withStroke(linewidth=2, foreground="white")]
        for row, column in letter_spots(region):
            axes.text(
                column, row, letter_of(index), ha="center", va="center", fontsize=8, path_effects=outline
            )


def _bare(axes: Axes) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_color(GREY)


def letter_of(index: int) -> str:
    """What a class is called in a mask: A, B, ..., Z, then its index."""
    letters = string.ascii_uppercase
    return letters[index] if index < len(letters) else str(index)


def _unit(colour: RGB) -> tuple[float, float, float]:
    red, green, blue = colour
    return red / 255, green / 255, blue / 255
