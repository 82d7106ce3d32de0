"""Tags of tiles from reference masks."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ome.data.scene_index import Scene
from ome.data.scenes import SceneReader
from ome.data.tag_filter import Drops, Filtered, filter_tiles, minimum_coverage
from ome.data.tags import TagTable
from ome.data.tile_choices import Layout, TileChoice, coverage_of_tiles, layouts, tile_choices
from ome.data.tiles import Tile
from ome.errors import UserError
from ome.progress import track


class MaskTags(NamedTuple):
    """Tags that the reference masks of a dataset imply.

    Attributes:
        table: Tags of all tiles of the train and val scenes.
        filtered: Outcome of the filter over the tiles of the train scenes.
        choices: What other tile sizes and filters would keep of the train scenes.
    """

    table: TagTable
    filtered: Filtered
    choices: list[TileChoice]


def tags_from_masks(
    reader: SceneReader,
    layout: Layout,
    minimum: float,
    overrides: Mapping[str, float],
    *,
    drops: Drops,
    cover: bool,
) -> MaskTags:
    """Lays tiles over the train and val scenes and reads which classes each of them contains.

    Args:
        reader: Reads the reference masks.
        layout: Size and stride of the tiles.
        minimum: Least fraction of a tile, in [0, 1], that each class present must cover.
        overrides: Other fractions by class name.
        drops: What happens if a class covers less, see `filter_tiles`.
        cover: Whether tiles reach the lower and right edges of a scene, see `tile_scene`.

    Raises:
        UserError: A scene has no reference mask, or a fraction is wrong.
    """
    names, train = reader.index.palette.names, reader.index.split("train")
    scenes = [*train, *reader.index.split("val")]
    if without := [scene.name for scene in scenes if scene.mask is None]:
        raise UserError(
            f"{len(without)} scenes have no reference mask ({', '.join(without[:5])}): "
            "give tags by dataset.tags=/path/to/tags.csv"
        )
    tiles: list[Tile] = []
    splits: list[str] = []
    largest = max(max(scene.height, scene.width) for scene in scenes)
    covered: dict[Layout, list[NDArray[np.float64]]] = {one: [] for one in layouts(layout, largest)}
    for scene in track(scenes, "tags of scenes", len(scenes)):
        of_scene = scene.tiles(*layout, cover=cover)
        tiles += of_scene
        splits += [scene.split] * len(of_scene)
        for one in covered if scene.split == "train" else (layout,):
            covered[one].append(_coverage(reader, scene, one, cover=cover))
    fractions = np.concatenate(covered[layout])
    least = minimum_coverage(names, minimum, overrides)
    filtered = filter_tiles(fractions, least, drops)
    too_small = filtered.too_small if drops == "class" and filtered.too_small.any() else None
    tags = (fractions > 0).astype(np.uint8)
    table = TagTable(names, tuple(tiles), tags, tuple(splits), filtered.kept, too_small)
    return MaskTags(
        table,
        filter_tiles(fractions[np.array(splits) == "train"], least, drops),
        tile_choices({one: parts[: len(train)] for one, parts in covered.items()}, least, minimum, drops),
    )


def _coverage(reader: SceneReader, scene: Scene, layout: Layout, *, cover: bool) -> NDArray[np.float64]:
    return coverage_of_tiles(
        lambda row, height: reader.mask(scene.rows(row, height)),
        (scene.height, scene.width),
        layout,
        reader.index.palette.num_classes,
        cover=cover,
    )
