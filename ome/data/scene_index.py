"""The index of the prepared scenes, with classes and pixel counts, which `prepare` writes.

Also selects the scenes that are scored, and those that are mapped.
"""

from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, get_args

from ome.damage import named_if_damaged
from ome.data.palette import Palette, UnknownColours, colours_of
from ome.data.tiles import Tile, tile_scene
from ome.errors import UserError
from ome.files import read_json, write_json

SplitName: TypeAlias = Literal["train", "val", "test"]
SPLITS: Final[tuple[SplitName, ...]] = get_args(SplitName)

INDEX: Final = "index.json"
"""Name of the index in the folder of prepared scenes."""


@dataclass(frozen=True)
class Scene:
    """One prepared scene.

    Attributes:
        name: Name within the dataset.
        split: Its split.
        height: Rows.
        width: Columns.
        bands: Bands of the image file.
        image: Path of the image, relative to the index's folder.
        mask: Path of the class-index mask, relative to the index's folder; None without a mask.
        unknown_pixels: Number of reference pixels whose colour is not in the palette.
        class_pixels: Number of reference pixels of each class, in index order; empty without a mask.
        unknown: The colours behind `unknown_pixels`.
    """

    name: str
    split: SplitName
    height: int
    width: int
    bands: int
    image: str
    mask: str | None
    unknown_pixels: int = 0
    class_pixels: tuple[int, ...] = ()
    unknown: UnknownColours = field(default_factory=UnknownColours)

    @property
    def whole(self) -> Tile:
        """The tile that covers the whole scene."""
        return self.rows(0, self.height)

    def rows(self, row: int, height: int) -> Tile:
        """The tile of some rows of the scene."""
        return Tile(self.name, row, 0, height, self.width)

    def tiles(self, size: int, stride: int, *, cover: bool = True) -> list[Tile]:
        """Square tiles over the scene, see `tile_scene`."""
        return tile_scene(self.name, self.height, self.width, size, stride, cover=cover)


@dataclass(frozen=True)
class SceneIndex:
    """The scenes of a prepared dataset.

    Attributes:
        folder: Folder of the index and the scenes.
        scenes: The scenes, in the order of the splits' lists.
        palette: Classes and their colours.
        dataset: Name of the dataset.
        channels: Bands (1-based) that make up the image by default, e.g. (4, 1, 2) for infrared, red, green;
            empty if the images differ in their bands.
        broken: Names of scenes that were skipped because they could not be read.
        opacity: Bands (1-based) that were read as opacity, and do not belong to the image.
    """

    folder: Path
    scenes: tuple[Scene, ...]
    palette: Palette
    dataset: str = ""
    channels: tuple[int, ...] = (1, 2, 3)
    broken: tuple[str, ...] = ()
    opacity: tuple[int, ...] = ()

    def split(self, name: SplitName) -> list[Scene]:
        """The scenes of one split; empty when the dataset has no such split."""
        return [scene for scene in self.scenes if scene.split == name]

    @cached_property
    def by_name(self) -> dict[str, Scene]:
        """The scenes by name."""
        return {scene.name: scene for scene in self.scenes}

    def scene(self, name: str) -> Scene:
        """The scene of that name.

        Raises:
            UserError: When the index has no such scene.
        """
        if name not in self.by_name:
            raise UserError(f"{self.folder / INDEX} has no scene {name!r}")
        return self.by_name[name]

    @property
    def unknown(self) -> UnknownColours:
        """The unknown colours of all scenes together."""
        return UnknownColours.merge(scene.unknown for scene in self.scenes)

    @property
    def class_pixels(self) -> dict[str, int]:
        """Reference pixels of each class over all scenes with a mask."""
        counts = [scene.class_pixels for scene in self.scenes if scene.mask is not None]
        return {name: sum(count[index] for count in counts) for index, name in enumerate(self.palette.names)}

    def write(self) -> None:
        """Writes `index.json` into the folder, atomically."""
        scenes = [asdict(scene) | {"unknown": _colours_to_json(scene.unknown)} for scene in self.scenes]
        value = {
            "dataset": self.dataset,
            "channels": self.channels,
            "classes": self.palette.classes,
            "ignored": self.palette.ignored,
            "class_pixels": self.class_pixels,
            "unknown_pixels": self.unknown.pixels,
            "unknown": _colours_to_json(self.unknown),
            "broken": self.broken,
            "scenes": scenes,
        }
        if self.opacity:
            value["opacity"] = self.opacity
        write_json(self.folder / INDEX, value)

    @classmethod
    def read(cls, folder: Path) -> "SceneIndex":
        """Reads the index of a folder of prepared scenes, which `prepare` wrote.

        Raises:
            UserError: When there is no index, or it was not written by ome.
        """
        path = folder / INDEX
        remedy = "run python -m ome.run stage=prepare with the settings of your data set"
        if not path.is_file():
            raise UserError(f"{path} does not exist: {remedy}")
        with named_if_damaged(path, remedy):
            value = read_json(path)
            palette = Palette(colours_of(value["classes"]), colours_of(value["ignored"]))
            scenes = tuple(_scene_from_json(scene) for scene in value["scenes"])
            broken, opacity = (tuple(value.get(key, ())) for key in ("broken", "opacity"))
            channels = tuple(value["channels"])
            return cls(folder, scenes, palette, value["dataset"], channels, broken, opacity)


def _colours_to_json(unknown: UnknownColours) -> dict[str, Any]:
    return {"counts": [[*colour, count] for colour, count in unknown.counts], "rest": unknown.rest}


def _scene_from_json(value: dict[str, Any]) -> Scene:
    unknown = value["unknown"]
    counts = tuple(((r, g, b), count) for r, g, b, count in unknown["counts"])
    colours = UnknownColours(counts, unknown["rest"])
    return Scene(**value | {"unknown": colours, "class_pixels": tuple(value["class_pixels"])})


def evaluation_split(index: SceneIndex) -> SplitName:
    """The split for scoring segmentation: the first of test, val and train with reference masks."""
    names: tuple[SplitName, ...] = ("test", "val", "train")
    return next(name for name in names if name == "train" or any(s.mask for s in index.split(name)))


def mapped_scenes(index: SceneIndex) -> list[Scene]:
    """The scenes to predict: those of the test split, and those that segmentation is scored on.

    With neither masks nor a test split, those of the val or the train split.
    """
    scored = [scene for scene in index.split(evaluation_split(index)) if scene.mask]
    test = [scene for scene in index.split("test") if scene not in scored]
    return scored + test or index.split("val") or index.split("train")
