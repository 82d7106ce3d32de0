"""What is known of a raw dataset: archives, file names, bands, colours and splits, in plain types."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ome.data.archives import RawFiles, find_files
from ome.data.palette import Palette
from ome.data.raw_source import RawSource
from ome.data.raw_split import Split, split_from_facts
from ome.data.scaling import Limits
from ome.errors import UserError
from ome.ignore import IGNORE


@dataclass(frozen=True)
class RawLayout:
    """The facts of a raw dataset.

    Attributes:
        name: Name of the dataset.
        palette: Colours of its reference images.
        split: How its scenes are divided.
        images: Where the images are, by the bands that they offer (e.g. `irrg`, `rgb`).
        masks: Where the reference images are, by kind (e.g. `full`, `eroded`); empty where there are none.
        bands: The images to use.
        reference: The reference images to use; None without.
        channels: Bands (1-based) that make up the image; empty for those of the images in use.
        indices: Value of each class, and of what is ignored, in masks of one band; empty where masks are
            painted in the palette's colours.
        limits: Values of 16-bit images that become 0 and 255; None for two percentiles of each band.
        partial: Whether scenes may lack the mask.
        nodata: Value of image pixels where nothing was measured; None for what the files say.
    """

    name: str
    palette: Palette
    split: Split
    images: Mapping[str, RawSource]
    masks: Mapping[str, RawSource] = field(default_factory=dict)
    bands: str = "rgb"
    reference: str | None = None
    channels: tuple[int, ...] = ()
    indices: Mapping[str, int] = field(default_factory=dict)
    limits: Limits | None = None
    partial: bool = False
    nodata: float | None = None

    def __post_init__(self) -> None:
        _require(self.bands, self.images, f"dataset.bands={self.bands}: {self.name} has")
        if self.masks and self.reference is not None:
            _require(self.reference, self.masks, f"dataset.reference={self.reference}: {self.name} has")
        if self.indices:
            _check_indices(self.indices, self.palette)

    @property
    def image(self) -> RawSource:
        """Where the images in use are."""
        return self.images[self.bands]

    @property
    def mask(self) -> RawSource | None:
        """Where the reference images in use are; None for a dataset without."""
        return self.masks[self.reference] if self.masks and self.reference is not None else None

    @property
    def mask_palette(self) -> Palette:
        """The colours that the reference images are painted in; an index v is the grey (v, v, v)."""
        if not self.indices:
            return self.palette
        greys = {name: (value, value, value) for name, value in self.indices.items()}
        ignored = {name: grey for name, grey in greys.items() if name not in self.palette.classes}
        if IGNORE not in self.indices.values():
            ignored["nodata 255"] = (IGNORE, IGNORE, IGNORE)
        classes = {name: greys[name] for name in self.palette.classes}
        return Palette(classes, ignored, self.palette.unknown_as_first)

    @property
    def default_channels(self) -> tuple[int, ...]:
        """Bands (1-based) that make up the image."""
        return self.channels or self.image.channels

    @property
    def named_bands(self) -> tuple[int, ...]:
        """Bands (1-based) that are image, although a file may call them opacity."""
        # Scenes of a published data set are shared by commands with other channels: its facts name them.
        return self.image.channels or self.channels


def _require(key: str, known: Mapping[str, object], message: str) -> None:
    if key not in known:
        raise UserError(f"{message} {', '.join(known)}")


def _check_indices(indices: Mapping[str, int], palette: Palette) -> None:
    known = palette.classes | palette.ignored
    if wrong := [name for name in indices if name not in known]:
        raise UserError(f"dataset.indices: {wrong[0]} is neither in dataset.classes nor in dataset.ignored")
    if missing := [name for name in palette.classes if name not in indices]:
        raise UserError(f"dataset.indices lacks {', '.join(missing)}")
    values = list(indices.values())
    if len(set(values)) < len(values) or not all(0 <= value <= 255 for value in values):
        raise UserError(f"dataset.indices={dict(indices)}: give each a value of its own from 0 to 255")


def raw_files(layout: RawLayout, raw: Path) -> tuple[RawFiles, RawFiles | None]:
    """The images in use, and the reference images, where there are any; errors as for `find_files`."""
    images = find_files(layout.images, layout.bands, raw, "dataset.bands")
    if layout.mask is None or layout.reference is None:
        return images, None
    return images, find_files(layout.masks, layout.reference, raw, "dataset.reference")


def layout_from_facts(facts: Mapping[str, Any]) -> RawLayout:
    """Builds a layout from the plain values of a dataset's facts.

    Args:
        facts: `name`, `bands`, `reference`, `classes` and `ignored` (name to three values), `images` and
            `masks` (kind to `{archive, pattern, channels, except}`), `split` (`train`, `val`, `test`: a list
            of names or the path of a list file; or `numeric`: three counts; or `folders`: lists by split;
            `absent`: refuse or skip), `channels`, `unknown_as_first` (see `Palette`). Other keys are left
            alone.

    Raises:
        UserError: When a fact is missing or of the wrong kind; the message names it.
    """
    try:
        palette = Palette(
            _colours(facts["classes"]),
            _colours(facts.get("ignored") or {}),
            bool(facts.get("unknown_as_first")),
        )
        return RawLayout(
            name=str(facts["name"]),
            palette=palette,
            split=split_from_facts(facts["split"]),
            images={str(kind): _source(value) for kind, value in facts["images"].items()},
            masks={str(kind): _source(value) for kind, value in (facts.get("masks") or {}).items()},
            bands=str(facts["bands"]),
            reference=facts.get("reference"),
            channels=tuple(facts.get("channels") or ()),
            indices={str(name): int(value) for name, value in (facts.get("indices") or {}).items()},
            nodata=facts.get("nodata"),
        )
    except KeyError as error:
        raise UserError(f"the dataset's facts lack the key {error}") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise UserError(f"the dataset's facts are malformed: {error}") from error


def _colours(value: Mapping[str, Sequence[int]]) -> dict[str, tuple[int, int, int]]:
    return {str(name): (int(r), int(g), int(b)) for name, (r, g, b) in value.items()}


def _source(value: Mapping[str, Any]) -> RawSource:
    pattern = str(value["pattern"])
    if Path(pattern).name.count("{scene}") != 1:
        raise UserError(f"the pattern {pattern!r} must have {{scene}} once, in the file's name")
    archive = value.get("archive")
    return RawSource(
        pattern,
        archive if archive is None or isinstance(archive, str) else tuple(archive),
        tuple(value.get("channels") or (1, 2, 3)),
        value.get("except"),
    )
