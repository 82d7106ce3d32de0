"""The trained classifier -> suggested tags with their uncertainty, for the tagging page."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ome.config.objects import hardware
from ome.config.sections import scene_reader
from ome.data.scene_index import SceneIndex
from ome.data.suggestions import write_suggestions
from ome.data.tags import TagTable
from ome.data.tiles import Tile
from ome.distributed.collectives import is_rank_zero
from ome.inference.classifier import classifier_in
from ome.inference.tag_probabilities import tag_probabilities
from ome.pipeline.layout import read_tag_table
from ome.pipeline.stage import Stage, Work
from ome.progress import console
from ome.scoring.multilabel import tag_uncertainty

SUGGESTIONS = "suggestions.csv"

SAME: Final = 0.005
"""If the probabilities of no class differ by more between images, the classifier is useless."""


def run(work: Work) -> dict[str, Any]:
    """Writes the probability of every class in every image, tagged or not, on rank 0 only."""
    if not is_rank_zero():
        return {}
    index = SceneIndex.read(work.inputs["prepare"])
    reader = scene_reader(work.config, index)
    table = read_tag_table(work.inputs["labels"], index)
    network, _ = classifier_in(work.inputs["cam"], reader)
    tile = work.config.dataset.tile
    tiles = _tiles(index, table, tile.size, tile.stride, cover=tile.cover)
    probabilities = tag_probabilities(network, reader, tiles, hardware(work.config).device(), "suggestions")
    uncertainty = tag_uncertainty(probabilities)
    rows = zip(tiles, uncertainty.tolist(), probabilities.tolist(), strict=True)
    write_suggestions(work.folder / SUGGESTIONS, index.palette.names, rows)
    if is_constant(probabilities):
        console.print(
            "[yellow]the classifier predicts the same tags for every image[/]: it has learnt nothing; train "
            "it longer, or with a smaller stage.cam.lr",
        )
    console.print(f"{len(tiles)} tiles, mean uncertainty {uncertainty.mean():.2f}")
    return {"tiles": len(tiles), "mean_uncertainty": float(uncertainty.mean())}


def is_constant(probabilities: NDArray[np.float64]) -> bool:
    """Whether the (N, C) probabilities of N > 1 images are the same for all of them."""
    return len(probabilities) > 1 and float(np.ptp(probabilities, axis=0).max()) < SAME


def _tiles(index: SceneIndex, table: TagTable, size: int, stride: int, *, cover: bool) -> list[Tile]:
    """Whole images if the tags are those of whole images, else tiles over all images."""
    whole = {scene.name: scene.whole for scene in index.scenes}
    if all(tile == whole[tile.scene] for tile in table.tiles):
        return list(whole.values())
    return [tile for scene in index.scenes for tile in scene.tiles(size, stride, cover=cover)]


STAGE = Stage(
    "suggest",
    run,
    requires=("prepare", "labels", "cam"),
    config_keys=("dataset.tile", "dataset.channels", "trainer.accelerator"),
    free_keys=("dataset.display", "trainer.precision"),
)
