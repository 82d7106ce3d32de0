"""The pictures of a tile: photographs, masks with letters, weights, heat maps and errors.

The report embeds them with a limited number of bytes; `ome.plots.panels` arranges them side by side.
"""

import base64
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ome.geo.grid import RGB
from ome.ignore import IGNORE
from ome.plots.letters import SMALLEST_LETTERED, letter_of, letter_spots

SIDES: Final = 384, 32
"""Largest and smallest length of a picture's longer side in pixels."""

LEGIBLE: Final = 256
"""Masks with a shorter longer side, in pixels, are enlarged before letters are drawn."""

RIGHT, WRONG, UNCOUNTED = 255, 0, 128
"""Grey values of `error_picture`; as for weights, white is good."""

_OPACITY: Final = 0.3, 0.75
"""Smallest and largest opacity of a heat map over a picture."""

_BLACK, _WHITE = 255, 254


@dataclass(frozen=True)
class Layer:
    """A picture of a tile, of the same extent as the tile's other pictures.

    Attributes:
        name: Title of the picture.
        picture: Mode `RGB`, `L`, or `P` for class indices, which get letters when the picture is encoded; its
            longer side is at most the first of `SIDES`.
    """

    name: str
    picture: Image.Image


def thinned(strips: Iterable[NDArray[np.uint8]], height: int) -> NDArray[np.uint8]:
    """An image (H, W, 3) or a mask (H, W) in the size of its picture, from parts of it.

    A mask is as in the picture of the whole; an image may differ from it by one grey level, because Pillow
    averages rows or columns first, whichever is faster, and rounds in between.

    Args:
        strips: Its parts from top to bottom, of its full width.
        height: H.
    """
    parts: list[NDArray[np.uint8]] = []
    for strip in strips:
        how = Image.Resampling.BOX if strip.ndim == 3 else Image.Resampling.NEAREST
        size = _size_within(SIDES[0], strip.shape[1], height)
        parts.append(np.asarray(Image.fromarray(strip).resize((size[0], len(strip)), how)))
    return np.asarray(Image.fromarray(np.concatenate(parts)).resize(size, how))


def photo(name: str, image: NDArray[np.uint8]) -> Layer:
    """An image (H, W, 3) uint8."""
    return Layer(name, _thinned(Image.fromarray(image), SIDES[0], Image.Resampling.BOX))


def class_picture(name: str, mask: NDArray[np.uint8], colours: Sequence[RGB]) -> Layer:
    """A mask (H, W) of class indices in their colours, and black for other values."""
    picture = Image.fromarray(mask)
    flat = [value for colour in colours for value in colour]
    picture.putpalette([*flat, *[0] * (3 * _WHITE - len(flat)), *[255] * 3, *[0] * 3])
    return Layer(name, _thinned(picture, SIDES[0], Image.Resampling.NEAREST))


def weight_picture(name: str, weight: NDArray[np.uint8]) -> Layer:
    """Weights (H, W) uint8 as grey values, white for 255."""
    return Layer(name, _thinned(Image.fromarray(weight), SIDES[0], Image.Resampling.NEAREST))


def error_picture(name: str, mask: NDArray[np.uint8], reference: NDArray[np.uint8]) -> Layer:
    """White pixels where a mask (H, W) is right, black where it is wrong, grey where one of both is 255."""
    values = np.where(mask == reference, np.uint8(RIGHT), np.uint8(WRONG))
    values[(mask == IGNORE) | (reference == IGNORE)] = UNCOUNTED
    return weight_picture(name, values)


def heat_picture(name: str, image: NDArray[np.uint8], values: NDArray[np.float32]) -> Layer:
    """Values (H, W) in [0, 1] as a heat map over the grey image, more transparent for low values."""
    grey = np.repeat(image.mean(axis=-1, keepdims=True), 3, axis=-1)
    opacity = np.clip(_OPACITY[0] + values, 0, _OPACITY[1])[..., None]
    return photo(name, (grey * (1 - opacity) + heat(values) * opacity).round().astype(np.uint8))


def heat_pictures(
    image: NDArray[np.uint8], maps: NDArray[np.float32], tags: NDArray[np.uint8], names: Sequence[str]
) -> list[Layer]:
    """Heat maps of the activation maps of the tagged classes over an image.

    Args:
        image: (H, W, 3) uint8.
        maps: (C, H, W) in [0, 1].
        tags: (C,) of 0 and 1.
        names: Names of the C pictures.
    """
    return [heat_picture(names[index], image, maps[index]) for index in np.flatnonzero(tags).tolist()]


def heat(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """The colours (H, W, 3), 0..255, of values (H, W) in [0, 1]."""
    colours: NDArray[np.float64] = 255 * colormaps["inferno"](values)[..., :3]
    return colours


def encode(layer: Layer, most: int) -> str:
    """The layer as a `data:` address: WebP for photographs, PNG for masks and grey values.

    Args:
        layer: The layer to encode.
        most: Largest number of bytes of the address; the picture is downsized until the address fits, or
            until its longer side is the last of `SIDES`.
    """
    address, side = "", SIDES[0]
    while side >= SIDES[1]:
        address = _encoded(layer.picture, side)
        if len(address) <= most:
            break
        # The number of bytes grows at most with the area.
        side = min(side - 1, int(side * (most / len(address)) ** 0.5))
    return address


def drawn(picture: Image.Image, side: int, legible: int) -> Image.Image:
    """The picture of a layer as it is shown, masks with letters.

    Args:
        picture: The picture of a layer.
        side: Largest length of a side in pixels.
        legible: Pictures with shorter sides, in pixels, are enlarged by the largest whole factor that fits.
    """
    thumbnail = _thinned(
        picture, side, Image.Resampling.BOX if picture.mode == "RGB" else Image.Resampling.NEAREST
    )
    factor = max(1, legible // max(thumbnail.size))
    if picture.mode == "P":
        return _lettered(thumbnail, factor)
    return thumbnail.resize((factor * thumbnail.width, factor * thumbnail.height), Image.Resampling.NEAREST)


def _encoded(picture: Image.Image, side: int) -> str:
    thumbnail = drawn(picture, side, min(side, LEGIBLE) if picture.mode == "P" else 0)
    kind = "webp" if picture.mode == "RGB" else "png"
    stream = io.BytesIO()
    thumbnail.save(stream, kind)
    return f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode()}"


def _thinned(picture: Image.Image, side: int, how: Image.Resampling) -> Image.Image:
    """The picture with no side longer than `side`."""
    return picture.resize(_size_within(side, *picture.size), how)


def _size_within(side: int, width: int, height: int) -> tuple[int, int]:
    """Width and height of a picture, reduced where a side is longer than `side`."""
    factor = min(1.0, side / max(width, height))
    return max(1, round(width * factor)), max(1, round(height * factor))


def _lettered(picture: Image.Image, factor: int) -> Image.Image:
    """Enlarges a mask, and draws the letter of each class inside its larger parts."""
    mask = np.asarray(picture)
    large = np.repeat(np.repeat(mask, factor, axis=0), factor, axis=1)
    font = ImageFont.load_default(max(9, max(large.shape) // 15))
    outlines, letters = (Image.new("L", large.shape[::-1]) for _ in range(2))
    for index in np.unique(mask[mask < _WHITE]).tolist():
        region = mask == index
        if region.mean() >= SMALLEST_LETTERED:
            for row, column in letter_spots(region):
                at, text = (factor * (column + 0.5), factor * (row + 0.5)), letter_of(index)
                ImageDraw.Draw(outlines).text(at, text, 255, font, anchor="mm", stroke_width=2)
                ImageDraw.Draw(letters).text(at, text, 255, font, anchor="mm")
    # Drawn separately: on the mask the anti-aliased edge of a letter would become another class index.
    large[np.asarray(outlines) > 127] = _WHITE
    large[np.asarray(letters) > 127] = _BLACK
    thumbnail = Image.fromarray(large)
    thumbnail.putpalette(picture.getpalette() or [])
    return thumbnail
