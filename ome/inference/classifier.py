"""The classifier and its multi-scale CAMs of tiles, which several stages compute."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from copy import copy
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ome.data.scenes import SceneReader
from ome.data.tags import TagTable
from ome.data.tiles import Tile, batches_of_one_size
from ome.data.transforms import to_device
from ome.errors import UserError
from ome.geo.sliding import prefetched
from ome.inference.outputs import on_host
from ome.networks.descriptions import classifier_from
from ome.networks.one_vs_all import OneVsAllNetwork
from ome.networks.seam import SeamNetwork
from ome.pipeline.manifest import Manifest
from ome.plugins import name_of
from ome.pseudo.fusion import multi_scale_cams
from ome.training.checkpoints import load_network
from ome.training.hardware import autocast, channels_last

DEFAULT_MEGAPIXELS = {"cpu": 0.3, "cuda": 16.0}
"""Input of one forward pass in megapixels by device type, from the measurements in docs/benchmarks.md."""

MOST_CLASSES: Final = 16
"""Classes up to which a forward pass has that input; of more, maps as large would take more memory."""


class Member(NamedTuple):
    """One network of the classifier: the only one, or the network of one class.

    Attributes:
        folder: Folder of its training.
        title: Title of its training.
        classes: Its classes, as a slice of all classes.
    """

    folder: Path
    title: str
    classes: slice


def members(classifier: Mapping[str, Any], folder: Path, names: Sequence[str]) -> list[Member]:
    """The networks that make up the classifier, in the order of the classes.

    Args:
        classifier: The configuration group `classifier`.
        folder: Folder of the stage.
        names: The C class names.
    """
    if not classifier["one_vs_all"]:
        return [Member(folder, "classifier", slice(0, len(names)))]
    return [
        Member(folder / f"class_{name}", f"classifier of {name}", slice(index, index + 1))
        for index, name in enumerate(names)
    ]


def build_classifier(
    backbone: Mapping[str, Any],
    classifier: Mapping[str, Any],
    num_classes: int,
    in_channels: int,
    weights: str | None,
) -> SeamNetwork:
    """Builds one network of the classifier.

    Args:
        backbone: The configuration group `backbone`.
        classifier: The configuration group `classifier`.
        num_classes: Number of its classes.
        in_channels: Bands of an image.
        weights: Weights of the backbone, see `classifier_from`; None for random weights.
    """
    description = {
        "backbone": name_of(backbone),
        "output_stride": backbone["output_stride"],
        "in_channels": in_channels,
        "num_classes": num_classes,
        **{name: classifier[name] for name in ("pcm", "attention", "zoom", "pooling")},
        "frozen": False,
    }
    return classifier_from(description, weights)


def trained_classifier(
    backbone: Mapping[str, Any],
    classifier: Mapping[str, Any],
    folder: Path,
    names: Sequence[str],
    in_channels: int,
) -> SeamNetwork | OneVsAllNetwork:
    """Loads the classifier of all classes that `stage=cam` trained in a folder."""
    networks = []
    for member in members(classifier, folder, names):
        network = build_classifier(backbone, classifier, len(names[member.classes]), in_channels, None)
        load_network(network, member.folder)
        networks.append(network)
    return OneVsAllNetwork(networks) if classifier["one_vs_all"] else networks[0]


def classifier_in(folder: Path, reader: SceneReader) -> tuple[SeamNetwork | OneVsAllNetwork, dict[str, Any]]:
    """Loads the classifier of a finished `stage=cam`, and the settings of that stage.

    Raises:
        UserError: The manifest does not describe the network, or the network has other classes or bands.
    """
    manifest = Manifest.read(folder)
    if manifest is None or "classifier" not in manifest.config:
        raise UserError(f"{folder} has no description of its network: run stage=cam again")
    config = manifest.config
    names, bands = reader.index.palette.names, len(reader.channels)
    return trained_classifier(config["backbone"], config["classifier"], folder, names, bands), config["stage"]


class CamPredictor:
    """Computes multi-scale CAMs of tiles with a trained classifier.

    Args:
        device: Device of the network.
        network: The classifier.
        reader: Reads the images.
        tagged: The tags of the tiles.
        settings: The settings `stage.cam.export`.
    """

    def __init__(
        self,
        device: torch.device,
        network: SeamNetwork | OneVsAllNetwork,
        reader: SceneReader,
        tagged: TagTable,
        settings: Mapping[str, Any],
    ) -> None:
        self._device = device
        self._network = channels_last(network.to(self._device)).eval()
        self._reader = reader
        self._tags = tagged.by_name
        self._settings = settings
        megapixels = settings["megapixels"] or DEFAULT_MEGAPIXELS[device.type]
        share = min(1.0, MOST_CLASSES / len(tagged.names))
        self._pixels = int(1e6 * megapixels * share / network.zoom**2)

    @classmethod
    def trained(cls, device: torch.device, folder: Path, reader: SceneReader, tagged: TagTable) -> Self:
        """Loads the classifier of a finished `stage=cam`, with the export settings of that stage."""
        network, settings = classifier_in(folder, reader)
        return cls(device, network, reader, tagged, settings["export"])

    def __call__(self, tiles: Sequence[Tile]) -> Iterator[NDArray[np.float32]]:
        """Yields the CAMs of each tile, (C, H, W) float32 in [0, 1], 0 for classes without a tag."""
        pixels = self._pixels
        fuse = partial(
            multi_scale_cams,
            self._refined,
            scales=tuple(self._settings["scales"]),
            flip=self._settings["flip"],
            pixels=pixels,
            compete=self._settings["compete"],
        )
        batches = batches_of_one_size(tiles, lambda tile: pixels // (tile.height * tile.width))
        reader = copy(self._reader)  # which another thread uses
        groups = ([tiles[index] for index in batch] for batch in batches)
        stacks = (
            (np.stack([reader.image(tile) for tile in some]), np.stack([reader.valid(tile) for tile in some]))
            for some in groups
        )
        with closing(prefetched(stacks)) as ahead:
            for batch, (stack, validity) in zip(batches, ahead, strict=True):
                tags = torch.from_numpy(np.stack([self._tags[tiles[index].name] for index in batch]))
                images, tags = to_device(stack, self._device), tags.to(self._device)
                with torch.inference_mode():
                    maps = fuse(images, tags, valid=torch.from_numpy(validity).to(self._device))
                yield from on_host(maps.float(), f"the CAMs from {tiles[batch[0]].name} on")

    def _refined(self, images: Tensor) -> Tensor:
        with autocast(self._device, self._settings["precision"]):
            result: Tensor = self._network(images).refined
        return result
