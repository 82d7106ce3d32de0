"""Datasets of tiles, read from the scenes on access."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from ome.data.sampler import Key
from ome.data.scenes import SceneReader
from ome.data.tiles import Tile
from ome.data.transforms import Augment, Augmentation, to_tensor
from ome.ignore import IGNORE

Batch = dict[str, Tensor]
"""A sample, or a batch of them: tensors by name (`image`, `tags`, `learnt`, `mask`, `weight`)."""

Decoded = tuple[NDArray[np.uint8], list[NDArray[np.uint8]]]
"""Image (H, W, bands) and masks (H, W) of a tile."""

MaskOf = Callable[[Tile], tuple[NDArray[np.uint8], NDArray[np.uint8]]]
"""Returns the class mask and the weight of a tile, both (H, W) uint8. Loader processes unpickle it."""


KEPT_BYTES: Final = 1 << 29
"""Decoded tiles that one dataset keeps at most, in all its loader processes; a training has two datasets."""


class TileDataset(Dataset[Batch]):
    """Base class: reads a tile, augments it with the sample's seed, and normalises the image.

    If all tiles fit into `KEPT_BYTES`, each is decoded once and cached; each loader process has its cache.
    """

    def __init__(
        self, reader: SceneReader, tiles: Sequence[Tile], augmentation: Augmentation | None, seed: int = 0
    ) -> None:
        self.reader = reader
        self.tiles = list(tiles)
        self._augmentation = augmentation
        self._augment: Augment | None = None
        self._seed = seed
        self._kept: dict[int, Decoded] = {}
        self._fits: bool | None = None

    def __len__(self) -> int:
        return len(self.tiles)

    @property
    def pixels(self) -> int:
        """Pixels of a sample's image; of the largest one where tiles are not cropped."""
        if self._augmentation is not None:
            return self._augmentation.crop**2
        return max(tile.height * tile.width for tile in self.tiles)

    def sample(
        self, key: Key | int, masks_of: Callable[[Tile], Sequence[NDArray[np.uint8]]]
    ) -> tuple[Tile, Tensor, list[NDArray[np.uint8]]]:
        """Reads the tile of a key, its image normalised (bands, H, W) float32, and its masks."""
        index, position = key if isinstance(key, tuple) else (key, key)
        tile = self.tiles[index]
        image, masks = self._decoded(index, masks_of)
        if self._augmentation is not None:
            if self._augment is None:
                self._augment = Augment(self._augmentation, len(self.reader.channels))
            seed = int(np.random.SeedSequence([self._seed, position]).generate_state(1)[0])
            image, masks = self._augment(seed, image, masks)
        return tile, to_tensor(image), masks

    def _decoded(self, index: int, masks_of: Callable[[Tile], Sequence[NDArray[np.uint8]]]) -> Decoded:
        """Image and masks of a tile, possibly from the cache, so they must not be changed."""
        if index in self._kept:
            return self._kept[index]
        tile = self.tiles[index]
        decoded = self.reader.image(tile), list(masks_of(tile))
        if self._fits is None:
            image, masks = decoded
            of_pixel = (image.nbytes + sum(mask.nbytes for mask in masks)) / (tile.height * tile.width)
            pixels, worker = sum(each.height * each.width for each in self.tiles), get_worker_info()
            self._fits = of_pixel * pixels * (worker.num_workers if worker else 1) <= KEPT_BYTES
        if self._fits:
            self._kept[index] = decoded
        return decoded


class TagDataset(TileDataset):
    """Samples of the classifier, float32: `image` (bands, H, W), `tags` (C,) and possibly `learnt` (C,).

    Args:
        reader: Reads the windows.
        tiles: The tiles.
        tags: (C,) array of 0 and 1 for each tile name.
        augmentation: Augmentation of the tiles, if any.
        seed: Determines the augmentation.
        learnt: (N, C) bool, whether a class of a tile takes part in the loss; None for all of them.
        with_mask: Add the reference `mask` (H, W) int64; it is 255 everywhere for a scene without one.
    """

    def __init__(
        self,
        reader: SceneReader,
        tiles: Sequence[Tile],
        tags: Mapping[str, NDArray[np.uint8]],
        augmentation: Augmentation | None = None,
        seed: int = 0,
        *,
        learnt: NDArray[np.bool_] | None = None,
        with_mask: bool = False,
    ) -> None:
        super().__init__(reader, tiles, augmentation, seed)
        self._tags = tags
        self._learnt = None if learnt is None else torch.from_numpy(learnt).float()
        self._with_mask = with_mask

    def __getitem__(self, key: Key | int) -> Batch:
        tile, image, masks = self.sample(key, self._mask)
        batch = {"image": image, "tags": torch.from_numpy(self._tags[tile.name].astype(np.float32))}
        if self._learnt is not None:
            batch["learnt"] = self._learnt[key[0] if isinstance(key, tuple) else key]
        return batch | {"mask": torch.from_numpy(masks[0]).long()} if masks else batch

    def _mask(self, tile: Tile) -> list[NDArray[np.uint8]]:
        if not self._with_mask:
            return []
        if not self.reader.has_mask(tile.scene):
            return [np.full((tile.height, tile.width), IGNORE, dtype=np.uint8)]
        return [self.reader.mask(tile)]


def certain(
    read: Callable[[Tile], NDArray[np.uint8]], tile: Tile
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The mask of a tile, with every pixel certain: weight 255.

    With `partial` it is a `MaskOf` that processes can pass on, unlike a lambda.
    """
    mask = read(tile)
    return mask, np.full_like(mask, 255)


class MaskDataset(TileDataset):
    """Samples of the segmenter: `image` (bands, H, W) float32, `mask` (H, W) int64, `weight` (H, W) uint8.

    A mask is 255 where a pixel has no label.

    Args:
        reader: Reads the images.
        tiles: The tiles.
        mask_of: Returns a tile's mask and weight: pseudo masks, or the reference with full weight.
        augmentation: Augmentation of the tiles, if any.
        seed: Determines the augmentation.
    """

    def __init__(
        self,
        reader: SceneReader,
        tiles: Sequence[Tile],
        mask_of: MaskOf,
        augmentation: Augmentation | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(reader, tiles, augmentation, seed)
        self._mask_of = mask_of

    def __getitem__(self, key: Key | int) -> Batch:
        _, image, (mask, weight) = self.sample(key, self._mask_of)
        return {"image": image, "mask": torch.from_numpy(mask).long(), "weight": torch.from_numpy(weight)}
