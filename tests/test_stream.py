"""The stream of samples: the same whatever the number of processes, epochs and interruptions."""

import os
from itertools import chain
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ome.data.datamodules import TileDataModule
from ome.data.datasets import Batch, MaskDataset, TagDataset
from ome.data.sampler import StreamSampler
from ome.data.tiles import Tile
from ome.data.transforms import IMAGE_MEAN, IMAGE_STD, Augment, Augmentation, band_statistics, to_tensor
from ome.ignore import IGNORE


def draws(sampler: StreamSampler, epochs: int) -> list[tuple[int, int]]:
    drawn = []
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        drawn += list(sampler)
    return drawn


def test_every_pass_shows_every_tile_once() -> None:
    indices = [index for index, _ in draws(StreamSampler(7, 5, seed=3), epochs=7)]
    passes = [indices[start : start + 7] for start in range(0, 35, 7)]
    assert all(sorted(one) == list(range(7)) for one in passes)
    assert len({tuple(one) for one in passes}) == 5  # each in its own order


def test_processes_share_the_stream_of_one() -> None:
    alone = draws(StreamSampler(10, 12, seed=1), epochs=3)
    parts = [draws(StreamSampler(10, 12, 1, rank, world_size=3), epochs=3) for rank in range(3)]
    assert list(chain.from_iterable(zip(*parts, strict=True))) == alone


def test_an_epoch_does_not_depend_on_the_epochs_before() -> None:
    resumed = StreamSampler(10, 12, seed=1)
    resumed.set_epoch(2)
    assert list(resumed) == draws(StreamSampler(10, 12, seed=1), epochs=3)[24:]


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (3, 2), (2, 50)])
def test_images_of_a_few_pixels_are_varied_like_others(size: tuple[int, int]) -> None:
    image, mask = np.full((*size, 3), 7, dtype=np.uint8), np.full(size, 1, dtype=np.uint8)
    augment = Augment(Augmentation(crop=8, scale=(0.3, 1.5), jitter=(0, 0, 0, 0)))
    for seed in range(20):
        varied, [varied_mask] = augment(seed, image, [mask])
        assert varied.shape == (8, 8, 3)
        assert set(np.unique(varied_mask)) <= {1, 255}
        assert (varied[varied_mask == 1] == 7).all()
        assert (varied_mask == 1).any()


def test_augmentation_is_decided_by_its_seed_and_moves_masks_with_the_image() -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    mask = (image[..., 0] > 127).astype(np.uint8)
    plain = Augment(Augmentation(crop=40, scale=(1.0, 1.0), jitter=(0, 0, 0, 0), dihedral=True))
    first, [first_mask] = plain(5, image, [mask])
    again, [again_mask] = plain(5, image, [mask])
    assert np.array_equal(first, again)
    assert np.array_equal(first_mask, again_mask)
    orientations = set()
    for seed in range(40):
        varied, [varied_mask] = plain(seed, image, [mask])
        assert np.array_equal(varied_mask, varied[..., 0] > 127)
        orientations.add(varied.tobytes())
    assert len(orientations) == 8  # rotations and reflections


def test_scale_place_and_colour_are_drawn_independently() -> None:
    image, (rows, columns) = (
        np.full((120, 120, 3), 120, dtype=np.uint8),
        np.indices((120, 120), dtype=np.uint8),
    )
    augment = Augment(Augmentation(crop=60, scale=(1.0, 1.5), jitter=(0.3, 0, 0, 0)))
    drawn = []
    for seed in range(150):
        varied, (down, across) = augment(seed, image, [rows, columns])
        top, left, side = int(down.min()), int(across.min()), float(np.ptp(down)) + 1
        drawn.append([side, top / (120 - side), left / (120 - side), varied[0, 0, 0]])
    assert np.abs(np.corrcoef(np.transpose(drawn)) - np.eye(4)).max() < 0.35


def test_padding_is_ignored_and_has_the_mean_colour() -> None:
    white = np.full((20, 20, 3), 255, dtype=np.uint8)
    grow = Augment(Augmentation(crop=60, scale=(1.0, 1.0), jitter=(0, 0, 0, 0)))
    image, [mask] = grow(1, white, [np.zeros((20, 20), dtype=np.uint8)])
    outside = (image != 255).any(axis=-1)
    assert outside.sum() == 60 * 60 - 20 * 20
    assert (mask == np.where(outside, 255, 0)).all()
    assert np.allclose(image[outside], [124, 116, 104], atol=1)


@pytest.mark.parametrize("bands", [1, 2, 4, 5, 13])
def test_any_number_of_bands_is_varied_together(bands: int) -> None:
    image = np.repeat(np.random.default_rng(0).integers(60, 190, (40, 40, 1), dtype=np.uint8), bands, axis=2)
    grow = Augment(Augmentation(crop=60, scale=(1.0, 1.0), jitter=(0, 0, 0, 0)), bands)
    varied, [mask] = grow(1, image, [np.zeros((40, 40), dtype=np.uint8)])
    assert varied.shape == (60, 60, bands)
    # Every band is moved alike, and padding has the means that `to_tensor` turns into zeros.
    assert (varied[mask == 0] == varied[mask == 0][:, :1]).all()
    if bands <= 4:
        assert np.abs(to_tensor(varied).numpy()[:, mask == IGNORE]).max() < 0.01
    jitter = Augment(Augmentation(crop=40, scale=(1.0, 1.0), jitter=(0.3, 0.3, 0.3, 0.1)), bands)
    brighter, _ = jitter(1, image)
    assert not np.array_equal(brighter, image)
    assert (brighter == brighter[..., :1]).all()


def test_bands_beyond_three_are_normalised_like_the_first() -> None:
    image = np.random.default_rng(0).integers(0, 256, (4, 5, 5), dtype=np.uint8)
    mean, std = np.array(IMAGE_MEAN)[[0, 1, 2, 0, 1]], np.array(IMAGE_STD)[[0, 1, 2, 0, 1]]
    expected = ((image / 255 - mean) / std).transpose(2, 0, 1)
    assert np.allclose(to_tensor(image).numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 7, 3), (6, 1, 1), (2, 5, 4, 3), (2, 3, 4, 5, 5)])
def test_looked_up_values_are_those_of_the_formula_to_the_bit(shape: tuple[int, ...]) -> None:
    image = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    mean, std = (torch.tensor(values) for values in band_statistics(shape[-1]))
    expected = ((torch.from_numpy(image).float() / 255 - mean) / std).movedim(-1, -3)
    tensor = to_tensor(image[..., ::-1, :])  # as a mirrored tile lies in memory
    assert torch.equal(tensor.flip(-1), expected)
    assert tensor.is_contiguous()


class Drawn:
    """A reader of three tiles of noise, which counts what is read."""

    channels = (1, 2, 3)

    def __init__(self) -> None:
        self.reads = 0

    def image(self, tile: Tile) -> NDArray[np.uint8]:
        self.reads += 1
        return self.noise(tile, 3)

    def masks(self, tile: Tile) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        return self.noise(tile, 1)[..., 0] % 4, self.noise(tile, 2)[..., 0]

    def noise(self, tile: Tile, bands: int) -> NDArray[np.uint8]:
        shape = (tile.height, tile.width, bands)
        return np.random.default_rng([tile.column, bands]).integers(0, 256, shape, dtype=np.uint8)


AUGMENTATIONS = {
    "none": None,
    "all": Augmentation(20, (0.5, 1.5), dihedral=True),
    "flips alone": Augmentation(24, (1.0, 1.0), (0, 0, 0, 0)),
}
"""The last crops, pads and resizes nothing, so that a kept tile itself reaches the flip."""


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
@pytest.mark.parametrize("room", [0, 1 << 20])
def test_tiles_that_fit_are_read_once_and_give_the_same_samples(
    monkeypatch: pytest.MonkeyPatch, augmentation: str, room: int
) -> None:
    monkeypatch.setattr("ome.data.datasets.KEPT_BYTES", room)
    reader: Any = Drawn()
    tiles = [Tile("scene", 0, 24 * column, 24, 24) for column in range(3)]
    varied = AUGMENTATIONS[augmentation]
    dataset = MaskDataset(reader, tiles, reader.masks, varied, seed=3)
    for position in range(12):
        key = (position % 3, position)
        expected = MaskDataset(Drawn(), tiles, reader.masks, varied, seed=3)[key]  # type: ignore[arg-type]
        sample = dataset[key]
        assert all(torch.equal(sample[name], expected[name]) for name in expected)
    assert reader.reads == (3 if room else 12)


def test_a_tile_comes_with_its_tags_and_those_that_are_learnt() -> None:
    reader: Any = Drawn()
    tiles = [Tile("scene", 0, 24 * column, 24, 24) for column in range(3)]
    tags, learnt = np.eye(3, dtype=np.uint8), np.array([[1, 0, 1], [1, 1, 1], [0, 0, 1]], dtype=bool)
    by_name = {tile.name: row for tile, row in zip(tiles, tags, strict=True)}
    data = TagDataset(reader, tiles, by_name, learnt=learnt)
    for position in range(6):
        index = (2 * position) % 3
        sample = data[index, position]
        assert sample["tags"].tolist() == tags[index].tolist()
        assert sample["learnt"].tolist() == learnt[index].tolist()
    assert "learnt" not in TagDataset(reader, tiles, by_name)[0]


class Tiles:
    def __len__(self) -> int:
        return 10


class Processes(Tiles):
    """Tells which process reads; all tiles are of one size."""

    tiles = tuple(Tile("scene", 0, 8 * column, 8, 8) for column in range(10))
    pixels = 64

    def __getitem__(self, index: int) -> Batch:
        return {"process": torch.tensor(os.getpid())}


@pytest.mark.parametrize(("side", "expected"), [(8, [4, 1]), (12, [4, 1]), (24, [2, 2, 1]), (50, [1] * 5)])
def test_large_images_are_validated_in_smaller_batches(side: int, expected: list[int]) -> None:
    reader: Any = Drawn()
    tiles = [Tile("scene", 0, side * column, side, side) for column in range(5)]
    train = MaskDataset(reader, tiles, reader.masks, Augmentation(crop=17))
    data = TileDataModule(train, MaskDataset(reader, tiles, reader.masks), batch=4, seed=0, steps=1)
    assert [len(batch["image"]) for batch in data.val_dataloader()] == expected


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_only_batches_for_a_gpu_are_pinned(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `trainer=cpu` no memory is, even where there is a GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    data = TileDataModule(Tiles(), batch=4, seed=0, steps=1)  # type: ignore[arg-type]
    strategy = SimpleNamespace(root_device=torch.device(device))
    data.trainer = SimpleNamespace(world_size=1, global_rank=0, strategy=strategy)  # type: ignore[assignment]
    assert data.train_dataloader().pin_memory is (device == "cuda")


def test_loader_processes_of_the_validation_are_started_once() -> None:
    tiles: Any = Processes()
    loader: Any = TileDataModule(tiles, tiles, batch=5, seed=0, steps=2, workers=1).val_dataloader()
    first, second = ({int(number) for batch in loader for number in batch["process"]} for _ in range(2))
    assert first == second
    assert os.getpid() not in first


@pytest.mark.parametrize(
    ("steps", "epochs", "expected"),
    [(None, 3, (2, 3)), (7, None, (4, 2)), (8, None, (4, 2)), (3, None, (3, 1))],
)
def test_steps_and_epochs(steps: int | None, epochs: int | None, expected: tuple[int, int]) -> None:
    data = TileDataModule(
        Tiles(),
        batch=4,
        seed=0,
        steps=steps,
        epochs=epochs,
        steps_per_epoch=4,  # type: ignore[arg-type]
    )
    assert (data.steps_per_epoch, data.epochs) == expected
