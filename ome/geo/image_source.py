"""What is known of an image before it is scaled to 8 bits and reduced to the bands of a network."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from ome.geo.mosaic import Mosaic
from ome.geo.reader import Raster


class ImageSource(NamedTuple):
    """The depth and the bands of an image.

    Attributes:
        depth: Data type of its values, by numpy's name.
        bands: Number of its bands without opacity.
        colours: What each band shows, opacity included, see `Raster.band_colours`.
    """

    depth: str
    bands: int
    colours: tuple[str, ...]

    @classmethod
    def from_json(cls, value: Sequence[Any]) -> "ImageSource":
        """The source that JSON stores as a list."""
        depth, bands, colours = value
        return cls(str(depth), int(bands), tuple(map(str, colours)))

    def colours_of(self, channels: tuple[int, ...]) -> tuple[str, ...]:
        """What the bands of a network (1-based) show; empty where one of them is unknown."""
        shown = tuple(self.colours[channel - 1] for channel in channels)
        return shown if all(shown) else ()


def source_of(raster: Raster | Mosaic) -> ImageSource:
    """The source of an open raster."""
    return ImageSource(raster.depth, len(raster.shown_bands), raster.band_colours)


def differences(
    scene: ImageSource, channels: tuple[int, ...], training: ImageSource, trained: tuple[int, ...]
) -> list[str]:
    """How a scene differs from the training images in what changes the input of the network.

    Args:
        scene: The source of the scene.
        channels: Its bands that the network takes.
        training: The source of the training images.
        trained: Their bands.

    Returns:
        A line for each difference.
    """
    lines = []
    if scene.bands != training.bands and channels == trained:
        lines.append(
            f"has {scene.bands} bands, the training images {training.bands}: the network takes the bands "
            f"{list(channels)}; choose others by 'dataset.channels=[...]'"
        )
    ours, theirs = scene.colours_of(channels), training.colours_of(trained)
    if ours and theirs and ours != theirs:
        lines.append(
            f"labels the bands {list(channels)} {', '.join(ours)}, the training images {', '.join(theirs)}: "
            "if that is right, give the bands in this order by 'dataset.channels=[...]'"
        )
    if scene.depth != training.depth:
        lines.append(
            f"has {scene.depth} values, the training images {training.depth}: uint16 is scaled and uint8 is "
            "not, so they may look different to the network"
        )
    return lines
