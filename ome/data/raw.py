"""What is known of a raw dataset: archives, file names, bands, colours and splits, in plain types."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from ome.data.archives import RawFiles, RawSource, find_files
from ome.data.names import check_name
from ome.data.palette import Palette
from ome.data.scaling import Limits
from ome.data.scenes import SPLITS, SplitName
from ome.errors import UserError
from ome.ignore import IGNORE

Listing: TypeAlias = tuple[str, ...] | Path
"""Scene names, or a text file with one name a line."""


@dataclass(frozen=True)
class Split:
    """How the scenes are divided.

    Attributes:
        train: Scenes that train.
        val: Scenes that choose between models; may be empty.
        test: Scenes that score; may be empty.
        numeric: Instead of the lists: how many scenes train, validate and test, as the first, the next and
            the last of all scenes found, sorted as numbers.
    """

    train: Listing = ()
    val: Listing = ()
    test: Listing = ()
    numeric: tuple[int, int, int] | None = None


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
            `masks` (kind to `{archive, pattern, channels}`), `split` (`train`, `val`, `test`: a list of names
            or the path of a list file; or `numeric`: three counts), `channels`, `unknown_as_first` (see
            `Palette`). Other keys are left alone.

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
            split=_split(facts["split"]),
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
    return RawSource(pattern, value.get("archive"), tuple(value.get("channels") or (1, 2, 3)))


def _split(value: Mapping[str, Any]) -> Split:
    train_list, val_list, test_list = (_listing(value.get(name)) for name in SPLITS)
    numeric = value.get("numeric")
    # Lists win: they are what a user types over a dataset whose own facts count.
    if numeric is None or train_list or val_list or test_list:
        return Split(train_list, val_list, test_list)
    if len(numeric) != 3:
        raise UserError(f"dataset.split.numeric={list(numeric)}: give three counts (train, val, test)")
    train, val, test = (int(count) for count in numeric)
    return Split(numeric=(train, val, test))


def _listing(value: str | Sequence[str | int] | None) -> Listing:
    return Path(value) if isinstance(value, str) else tuple(str(name) for name in value or ())


def resolve_split(split: Split, raw: Path, images: RawFiles) -> list[tuple[str, SplitName]]:
    """Lists the scenes of a dataset.

    Args:
        split: Lists, list files or counts.
        raw: The raw folder; list files may be given relative to it.
        images: The images, for the counts.

    Returns:
        Name and split of each scene, train before val before test.

    Raises:
        UserError: When a list file is missing or empty, there is nothing to train on, a scene is listed
            twice, or there are fewer scenes than counted.
    """
    if split.numeric is not None:
        listed = _numeric(split.numeric, images)
    else:
        listed = {name: _names(getattr(split, name), raw, name) for name in SPLITS}
    if not listed["train"]:
        raise UserError("dataset.split.train is empty: list the scenes to train on")
    seen: dict[str, SplitName] = {}
    for split_name in SPLITS:
        for scene in listed[split_name]:
            check_name(scene, f"dataset.split.{split_name}: the scene")
            if scene in seen:
                both = f"dataset.split.{seen[scene]} and dataset.split.{split_name}"
                raise UserError(f"scene {scene} is listed twice, in {both}: list it once")
            seen[scene] = split_name
    return list(seen.items())


def _numeric(counts: tuple[int, int, int], images: RawFiles) -> dict[SplitName, Sequence[str]]:
    names = images.scenes()
    if words := [name for name in names if not name.isdecimal()]:
        raise UserError(
            f"dataset.split.numeric: {words[0]} in {images.where} is not a number; list the scenes"
        )
    asked = f"dataset.split.numeric={list(counts)}"
    if min(counts) < 0:
        raise UserError(f"{asked}: counts cannot be negative")
    if sum(counts) > len(names):
        raise UserError(
            f"{asked} asks for {sum(counts)} scenes and {images.where} has {len(names)}: give smaller counts,"
            " or lists by dataset.split.train=... and dataset.split.test=..."
        )
    train, val, test = counts
    ordered = sorted(names, key=int)
    return {
        "train": ordered[:train],
        "val": ordered[train : train + val],
        "test": ordered[len(names) - test :],
    }


def _names(listing: Listing, raw: Path, split: SplitName) -> Sequence[str]:
    if isinstance(listing, tuple):
        return listing
    candidates = [listing] if listing.is_absolute() else [listing, raw / listing]
    for path in candidates:
        if path.is_file():
            names = path.read_text(encoding="utf-8").split()
            if not names:
                raise UserError(f"{path} is empty: list one scene a line")
            return names
    places = " or ".join(str(path) for path in candidates)
    raise UserError(f"dataset.split.{split}: the list {places} does not exist")
