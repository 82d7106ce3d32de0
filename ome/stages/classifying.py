"""What `cam` and `pseudo` share: the classifier, and its multi-scale CAMs of tiles."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig
from torch import Tensor

from ome.data.scenes import SceneReader
from ome.data.tags import TagTable
from ome.data.tiles import Tile
from ome.data.transforms import to_tensor
from ome.errors import UserError
from ome.networks.backbones import build_backbone
from ome.networks.seam import SeamNetwork
from ome.pseudo.fusion import multi_scale_cams
from ome.stages.manifest import Manifest
from ome.stages.settings import hardware
from ome.training.fit import load_network

DEFAULT_MEGAPIXELS = {"cpu": 0.3, "cuda": 16.0}
"""Input of one forward pass: what pays on each kind of device, see docs/benchmarks.md."""


def build_classifier(
    config: DictConfig, num_classes: int, in_channels: int, weights: str | None
) -> SeamNetwork:
    """The classifier that the configuration names, with the given weights in its backbone."""
    settings = config.backbone
    backbone = build_backbone(settings.name, weights, settings.output_stride, in_channels)
    return SeamNetwork(backbone, num_classes)


class CamPredictor:
    """Multi-scale CAMs of tiles by a trained classifier.

    Args:
        config: Names the hardware.
        network: The classifier.
        reader: Reads the images.
        tagged: The tags of the tiles.
        settings: `scales`, `flip`, and `megapixels` of one forward pass.
    """

    def __init__(
        self,
        config: DictConfig,
        network: SeamNetwork,
        reader: SceneReader,
        tagged: TagTable,
        settings: Mapping[str, Any],
    ) -> None:
        self._device = hardware(config).device()
        self._network = network.to(self._device).eval()
        self._reader = reader
        self._tags = tagged.by_name
        self._settings = settings

    @classmethod
    def trained(cls, config: DictConfig, folder: Path, reader: SceneReader, tagged: TagTable) -> Self:
        """The classifier that `stage=cam` left in a folder, with the export settings of that stage."""
        network = build_classifier(config, reader.index.palette.num_classes, len(reader.channels), None)
        load_network(network, folder)
        manifest = Manifest.read(folder)
        if manifest is None:
            raise UserError(f"{folder} has no manifest: run stage=cam again")
        return cls(config, network, reader, tagged, manifest.config["stage"]["export"])

    def __call__(self, tiles: Sequence[Tile]) -> Iterator[NDArray[np.float32]]:
        """Yields the CAMs of each tile, (C, H, W) float32 in [0, 1], 0 for classes without a tag."""
        scales, flip = tuple(self._settings["scales"]), self._settings["flip"]
        pixels = int(1e6 * (self._settings["megapixels"] or DEFAULT_MEGAPIXELS[self._device.type]))
        for batch in _batches(tiles, pixels):
            images = to_tensor(np.stack([self._reader.image(tile) for tile in batch])).to(self._device)
            tags = torch.from_numpy(np.stack([self._tags[tile.name] for tile in batch])).to(self._device)
            with torch.inference_mode():
                maps = multi_scale_cams(self._refined, images, tags, scales, flip=flip, pixels=pixels)
            yield from maps.float().cpu().numpy()

    def _refined(self, images: Tensor) -> Tensor:
        result: Tensor = self._network(images).refined
        return result


def _batches(tiles: Sequence[Tile], pixels: int) -> list[list[Tile]]:
    """Groups consecutive tiles of one size into batches of at most that many pixels, at least one tile."""
    batches: list[list[Tile]] = []
    for tile in tiles:
        last = batches[-1] if batches else []
        together = (len(last) + 1) * tile.height * tile.width <= pixels
        if last and together and (last[0].height, last[0].width) == (tile.height, tile.width):
            last.append(tile)
        else:
            batches.append([tile])
    return batches
