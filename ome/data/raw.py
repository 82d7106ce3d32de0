"""The layout of a raw dataset: archives, file names, bands, colours and splits, in plain types."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ome.data.archives import RawFiles, find_files
from ome.data.palette import Palette, colours_of
from ome.data.raw_source import RawSource
from ome.data.raw_split import Split, split_from_facts
from ome.data.scaling import Limits
from ome.errors import UserError
from ome.ignore import IGNORE


@dataclass(frozen=True)
class RawLayout:
    """The layout of a raw dataset.

    Attributes:
        name: Name of the dataset.
        palette: Colours of its reference images.
        split: The split of its scenes.
        images: Sources of images, by their bands (e.g. `irrg`, `rgb`).
        masks: Sources of reference images, by kind (e.g. `full`, `eroded`); empty without reference images.
        bands: The key of `images` in use.
        reference: The key of `masks` in use, if any.
        channels: Bands (1-based) that make up the image; empty for those of the source in use.
        indices: Value of each class, and of ignored areas, in single-band masks; empty where masks are in the
            palette's colours.
        limits: 16-bit values that become 0 and 255; None for two percentiles of each band.
        partial: Whether scenes may lack the mask.
        nodata: Nodata value of images; None for the values in the files.
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
        """The source of the images in use."""
        return self.images[self.bands]

    @property
    def mask(self) -> RawSource | None:
        """The source of the reference images in use, if any."""
        return self.masks[self.reference] if self.masks and self.reference is not None else None

    @property
    def mask_palette(self) -> Palette:
        """The colours of the reference images; an index v is the grey (v, v, v)."""
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
        """Bands (1-based) that count as image even if a file labels them opacity."""
        # Commands with other channels share the scenes of a published dataset, so its YAML lists them.
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
        raise UserError(f"dataset.indices={dict(indices)}: give each class a different value from 0 to 255")


def raw_files(layout: RawLayout, raw: Path) -> tuple[RawFiles, RawFiles | None]:
    """The files of the images in use, and of the reference images, if any; errors as for `find_files`."""
    images = find_files(layout.images, layout.bands, raw, "dataset.bands")
    if layout.mask is None or layout.reference is None:
        return images, None
    return images, find_files(layout.masks, layout.reference, raw, "dataset.reference")


def layout_from_facts(facts: Mapping[str, Any]) -> RawLayout:
    """Builds a layout from a dataset's configuration in plain types.

    Args:
        facts: `name`, `bands`, `reference`, `classes` and `ignored` (name to three values), `images` and
            `masks` (kind to `{archive, pattern, channels, except}`), `split` (`train`, `val`, `test`: a list
            of names or the path of a list file; or `numeric`: three counts; or `folders`: lists by split;
            `absent`: refuse or skip), `channels`, `range` (see `limits_of`), `unknown_as_first` (see
            `Palette`). Other keys are ignored.

    Raises:
        UserError: When a key is missing or its value has the wrong type; the message names it.
    """
    for key in ("classes", "images", "masks"):
        if not isinstance(facts.get(key, {}), Mapping) and (facts[key] or key != "masks"):
            entries = "names to colours" if key == "classes" else "kinds to {archive, pattern}"
            raise UserError(f"dataset.{key}={facts[key]}: expected a mapping of {entries}")
    try:
        palette = Palette(
            colours_of(facts["classes"]),
            colours_of(facts.get("ignored") or {}),
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
            limits=limits_of(facts.get("range")),
            nodata=facts.get("nodata"),
        )
    except KeyError as error:
        raise UserError(f"the dataset's configuration lacks the key {error}") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise UserError(f"the dataset's configuration is malformed: {error}") from error


SOURCE_KEYS: Final = ("archive", "pattern", "channels", "except")
"""Keys of a kind of images or masks in a dataset's configuration."""


def _source(value: Mapping[str, Any]) -> RawSource:
    if not isinstance(value, Mapping):
        raise UserError(f"dataset.images and dataset.masks: expected {{archive, pattern}} and not {value!r}")
    if unknown := [name for name in value if name not in SOURCE_KEYS]:
        raise UserError(
            f"dataset.images and dataset.masks: unknown key {unknown[0]}: known are {', '.join(SOURCE_KEYS)}"
        )
    pattern = str(value["pattern"])
    if Path(pattern).name.count("{scene}") != 1:
        raise UserError(f"the pattern {pattern!r} must contain {{scene}} exactly once, in the file's name")
    archive = value.get("archive")
    return RawSource(
        pattern,
        archive if archive is None or isinstance(archive, str) else tuple(archive),
        tuple(value.get("channels") or (1, 2, 3)),
        value.get("except"),
    )


def limits_of(limits: Sequence[int] | None) -> Limits | None:
    """The limits of 16-bit images from `dataset.range`; None for the percentiles of each image."""
    if limits is None:
        return None
    if len(limits) != 2 or not 0 <= limits[0] < limits[1] < 1 << 16:
        raise UserError(
            f"dataset.range={list(limits)}: give the values that become 0 and 255, e.g. [0, 4095]"
        )
    return int(limits[0]), int(limits[1])
