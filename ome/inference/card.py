"""The card of a segmenter: everything needed to use it without the run's configuration."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, Self

from ome.damage import named_if_damaged
from ome.data.palette import colours_of
from ome.data.scaling import Limits
from ome.errors import UserError
from ome.files import read_json, write_json
from ome.geo.grid import RGB
from ome.geo.image_source import ImageSource
from ome.geo.windows import window_side
from ome.networks.segmenters import Segmenter, build_segmenter
from ome.plugins import code_of
from ome.training.checkpoints import load_network

CARD: Final = "segmenter.json"
"""Name of a segmenter's card, beside its weights."""


@dataclass(frozen=True)
class SegmenterCard:
    """Inputs and outputs of a trained segmenter.

    Attributes:
        segmenter: Its architecture, see `build_segmenter`.
        encoder: Its encoder.
        classes: Names and colours of the classes, in order of index.
        channels: Bands (1-based) of the scenes that make up its images.
        picture: Positions in `channels`, from 0, of the three bands for RGB pictures and for the CRF.
        tile: Side in pixels of the crops it was trained on.
        limits: Values of 16-bit scenes that became 0 and 255; None for percentiles of each band of a scene.
        pixel_size: Pixel size of its training scenes in metres; None if unknown.
        temperature: Temperature that calibrates its probabilities, see `fit_temperature`; None if `val` has
            no reference masks.
        nodata: Nodata value of its training scenes by `dataset.nodata`; None for the values in the files.
        source: Depth and bands of its first training image; None if unknown.
        code: Code of a network that is a plug-in, see `code_of`; None for one of the package.
        views: Views of a tile whose mean the temperature calibrates, see `described_views`; None if unknown.
    """

    segmenter: str
    encoder: str
    classes: dict[str, RGB]
    channels: tuple[int, ...]
    picture: tuple[int, ...]
    tile: int
    limits: Limits | None = None
    pixel_size: float | None = None
    temperature: float | None = None
    nodata: float | None = None
    source: ImageSource | None = None
    code: str | None = None
    views: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Class names in order of index."""
        return tuple(self.classes)

    @property
    def colours(self) -> tuple[RGB, ...]:
        """Class colours in order of index."""
        return tuple(self.classes.values())

    @property
    def calibration(self) -> str:
        """Description of the confidence in maps."""
        if self.temperature is None:
            return "not calibrated"
        return f"calibrated on val by temperature {self.temperature:.2f}"

    def uncalibrated(self) -> Self:
        """The card for an ensemble or for refined probabilities, to which the temperature does not apply."""
        return replace(self, temperature=None, views=None)

    def for_views(self, scales: Sequence[float], *, flip: bool, tta: str | None) -> Self:
        """The card for a prediction from these views, see `Predictor`.

        Its `tile` is the side of the windows, see `window_side`. The mean of other views than those of the
        calibration has another temperature, which is not known.
        """
        is_same = self.views in {None, described_views(scales, flip=flip, tta=tta)}
        temperature = self.temperature if is_same else None
        return replace(self, tile=window_side(self.tile, scales), temperature=temperature)

    def difference(self, other: "SegmenterCard") -> str | None:
        """The first property that prevents averaging the probabilities of two segmenters, or None."""
        compared = {
            "classes": (self.names, other.names),
            "colours": (self.colours, other.colours),
            "bands": (self.channels, other.channels),
            "scaling of 16 bits (dataset.range)": (self.limits, other.limits),
        }
        for name, (ours, theirs) in compared.items():
            if ours != theirs:
                reordered = {*(ours or ())} == {*(theirs or ())}
                return f"{'the order of ' * reordered}{name}, {_listed(ours)} and {_listed(theirs)}"
        return None

    def build(self, weights: str | None = None) -> Segmenter:
        """Builds the network, with random weights or those of a pretrained encoder."""
        return build_segmenter(self.segmenter, self.encoder, len(self.classes), weights, len(self.channels))

    def load(self, folder: Path) -> Segmenter:
        """Builds the network and loads the weights that its training saved in a folder.

        Raises:
            UserError: The weights do not fit, or the network is a plug-in whose code has changed since.
        """
        if SegmenterCard.read(folder).code not in {None, code_of(self.segmenter)}:
            raise UserError(
                f"the code of {self.segmenter} has changed since the network in {folder} was trained: "
                "restore it, or train again"
            )
        network = self.build()
        load_network(network, folder)
        return network

    def write(self, folder: Path) -> None:
        """Writes the card beside the weights."""
        write_json(folder / CARD, asdict(self))

    @classmethod
    def read(cls, folder: Path) -> "SegmenterCard":
        """Reads the card beside the weights.

        Raises:
            UserError: The card does not exist or is damaged.
        """
        path = folder / CARD
        if not path.exists():
            raise UserError(f"{path} does not exist: train again with force=true")
        with named_if_damaged(path, "train again with force=true"):
            value: dict[str, Any] = read_json(path)
            limits = value["limits"]
            fields: dict[str, Any] = {key: tuple(value[key]) for key in ("channels", "picture")}
            fields["classes"] = colours_of(value["classes"])
            fields["limits"] = (int(limits[0]), int(limits[1])) if limits else None
            fields["source"] = ImageSource.from_json(value["source"]) if value["source"] else None
            return cls(**value | fields)


def described_views(scales: Sequence[float], *, flip: bool, tta: str | None) -> str:
    """The views of a tile as text, e.g. `1, 1.5 flip`; see `Predictor`."""
    orientations = tta or ("flip" if flip else "")
    return f"{', '.join(f'{scale:g}' for scale in sorted(scales))} {orientations}".rstrip()


def _listed(values: Sequence[object] | None) -> str:
    return "percentiles" if values is None else ", ".join(map(str, values))


def check_alike(segmenters: Mapping[Path, SegmenterCard]) -> None:
    """Checks that the probabilities of segmenters can be averaged.

    Args:
        segmenters: Their cards by the folders that messages name.

    Raises:
        UserError: Their classes, colours, bands or scaling differ.
    """
    (first, card), *others = segmenters.items()
    for other, other_card in others:
        if difference := card.difference(other_card):
            raise UserError(f"{first} and {other} differ in {difference}: average runs that have the same")
