"""The trained classifier -> what it would tag, and how unsure it is, for the page where a person tags."""

from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ome.config.objects import hardware
from ome.config.selected import scene_reader
from ome.data.scene_index import SceneIndex
from ome.data.scenes import SceneReader
from ome.data.suggestions import write_suggestions
from ome.data.tags import TagTable
from ome.data.tiles import Tile, batches_of_one_size, tile_scene
from ome.data.transforms import to_tensor
from ome.distributed.collectives import is_rank_zero
from ome.inference.classifier import DEFAULT_MEGAPIXELS, classifier_in
from ome.pipeline.layout import read_tag_table
from ome.pipeline.stage import Stage, Work
from ome.progress import console, meter
from ome.scoring.multilabel import tag_uncertainty
from ome.training.hardware import channels_last

SUGGESTIONS = "suggestions.csv"

SAME: Final = 0.005
"""Probabilities that nowhere differ by more say nothing of any image."""


def run(work: Work) -> dict[str, Any]:
    """Writes the probability of every class in every image, tagged or not; other processes only wait."""
    if not is_rank_zero():
        return {}
    index = SceneIndex.read(work.inputs["prepare"])
    reader = scene_reader(work.config, index)
    table = read_tag_table(work.inputs["labels"], index)
    network, _ = classifier_in(work.inputs["cam"], reader)
    tile = work.config.dataset.tile
    tiles = _tiles(index, table, tile.size, tile.stride, cover=tile.cover)
    probabilities = tag_probabilities(network, reader, tiles, hardware(work.config).device())
    uncertainty = tag_uncertainty(probabilities)
    rows = zip(tiles, uncertainty.tolist(), probabilities.tolist(), strict=True)
    write_suggestions(work.folder / SUGGESTIONS, index.palette.names, rows)
    if says_the_same(probabilities):
        console.print(
            "[yellow]the classifier says the same of every image[/]: it has learnt nothing; train it with a "
            "smaller stage.cam.lr, or longer",
            highlight=False,
        )
    console.print(f"{len(tiles)} tiles, mean uncertainty {uncertainty.mean():.2f}", highlight=False)
    return {"tiles": len(tiles), "mean_uncertainty": float(uncertainty.mean())}


def says_the_same(probabilities: NDArray[np.float64]) -> bool:
    """Whether (N, C) probabilities tell none of several images from the others."""
    return len(probabilities) > 1 and float(np.ptp(probabilities, axis=0).max()) < SAME


def tag_probabilities(
    network: nn.Module, reader: SceneReader, tiles: list[Tile], device: torch.device
) -> NDArray[np.float64]:
    """The (N, C) probabilities in [0, 1] of each class in each of N tiles: the sigmoid of the pooled CAM."""
    network = channels_last(network.to(device)).eval()
    pixels = int(1e6 * DEFAULT_MEGAPIXELS[device.type])
    found = []
    with meter("suggestions, tiles", len(tiles)) as shown, torch.inference_mode():
        for indices in batches_of_one_size(tiles, lambda tile: pixels // (tile.height * tile.width)):
            images = to_tensor(np.stack([reader.image(tiles[index]) for index in indices])).to(device)
            # As the classifier's loss pools it.
            logits = network(images).cam.mean(dim=(2, 3))
            found.append(logits.double().sigmoid().cpu().numpy())
            shown.advance(len(indices))
    return np.concatenate(found)


def _tiles(index: SceneIndex, table: TagTable, size: int, stride: int, *, cover: bool) -> list[Tile]:
    """Every image where tags are given to whole images, else tiles laid over all of them."""
    whole = {scene.name: Tile(scene.name, 0, 0, scene.height, scene.width) for scene in index.scenes}
    if all(tile == whole[tile.scene] for tile in table.tiles):
        return list(whole.values())
    return [
        tile
        for scene in index.scenes
        for tile in tile_scene(scene.name, scene.height, scene.width, size, stride, cover=cover)
    ]


STAGE = Stage(
    "suggest",
    run,
    requires=("prepare", "labels", "cam"),
    config_keys=("dataset.tile", "dataset.channels", "trainer.accelerator"),
    free_keys=("dataset.display", "trainer.precision"),
)
