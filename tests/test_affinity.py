"""AffinityNet: pairs, features, labels, loss and random walk beside loops that follow the formulas."""

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from ome.data.datasets import Batch
from ome.ignore import IGNORE
from ome.networks.affinity import AffinityNetwork, neighbour_offsets, pair_affinity, pair_indices
from ome.networks.backbones import build_backbone
from ome.pseudo.affinity_label import affinity_label
from ome.pseudo.random_walk import random_walk, transition_matrix, walk_cams
from ome.training.affinity import AffinityLearner, _pairs_on
from ome.training.affinity_loss import affinity_loss, grid_labels
from ome.training.optimizers import Optimization
from tests.test_networks import TinyBackbone
from tests.test_training import reloaded
from tests.test_uncertainty import NoCrf

Array = NDArray[Any]


def all_pairs(height: int, width: int, radius: int) -> set[tuple[int, int]]:
    """Every pair of cells nearer than the radius, the smaller index first."""
    cells = list(enumerate(product(range(height), range(width))))
    return {
        (i, j)
        for i, (y, x) in cells
        for j, (v, u) in cells
        if i < j and (y - v) ** 2 + (x - u) ** 2 < radius**2
    }


def elu(x: Array) -> Array:
    return np.where(x > 0, x, np.exp(x) - 1)


def dense_walk(maps: Array, affinity: dict[tuple[int, int], float], beta: float, squarings: int) -> Array:
    """The walk as the original computes it: the whole matrix, squared."""
    cells = maps[0].size
    matrix = np.eye(cells)
    for (i, j), value in affinity.items():
        matrix[i, j] = matrix[j, i] = value
    transition = matrix**beta
    transition /= transition.sum(axis=0, keepdims=True)
    for _ in range(squarings):
        transition = transition @ transition
    return (maps.reshape(len(maps), -1) @ transition).reshape(maps.shape)


def random_affinity(height: int, width: int, radius: int) -> tuple[Array, Array]:
    pairs = pair_indices((height, width), radius).numpy()
    return np.random.default_rng(0).uniform(0.4, 1.0, pairs.shape[1]), pairs


@pytest.mark.parametrize(("height", "width", "radius"), [(7, 9, 5), (3, 2, 5), (6, 6, 2), (1, 1, 3)])
def test_pairs_are_all_neighbours_once(height: int, width: int, radius: int) -> None:
    pairs = [(int(i), int(j)) for i, j in pair_indices((height, width), radius).T]
    assert len(set(pairs)) == len(pairs)
    assert set(pairs) == all_pairs(height, width, radius)


def test_a_cell_has_34_neighbours_one_way_at_radius_5() -> None:
    assert len(neighbour_offsets(5)) == 34


def test_pair_affinity_is_the_formula_in_the_order_of_the_pairs() -> None:
    features = torch.randn(2, 6, 5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    affinity = pair_affinity(features, 4)
    cells = features.flatten(2).numpy()
    for image in range(2):
        expected = [
            np.exp(-np.abs(cells[image, :, i] - cells[image, :, j]).mean())
            for i, j in pair_indices((5, 7), 4).T.tolist()
        ]
        np.testing.assert_allclose(affinity[image], expected, rtol=1e-12)


def test_features_are_three_stages_side_by_side() -> None:
    torch.manual_seed(0)
    backbone = TinyBackbone()
    network = AffinityNetwork(backbone).double().eval()
    # 8 x 8 pixels are one cell, which the resize takes from the upper left corner of each stage.
    image = torch.rand(1, 3, 8, 8, dtype=torch.float64)
    stages = [stage[0, :, 0, 0].detach().numpy() for stage in backbone(image)]
    layers = [network.f8_3, network.f8_4, network.f8_5]
    reduced = [
        elu(layer.weight[:, :, 0, 0].detach().numpy() @ x) for layer, x in zip(layers, stages, strict=True)
    ]
    expected = elu(network.f9.weight[:, :, 0, 0].detach().numpy() @ np.concatenate(reduced))
    assert [len(part) for part in reduced] == [64, 128, 256]
    np.testing.assert_allclose(network(image)[0, :, 0, 0].detach(), expected, atol=1e-12)


@pytest.mark.parametrize("stride", [8, 16, 32])
def test_every_backbone_gives_the_stride_8_grid(stride: int) -> None:
    network = AffinityNetwork(build_backbone("resnet18", None, stride)).eval()
    with torch.inference_mode():
        assert network(torch.rand(1, 3, 70, 50)).shape == (1, 448, 9, 7)


def test_published_names_and_shapes_on_resnet38d() -> None:
    with torch.device("meta"):
        state = AffinityNetwork(build_backbone("resnet38d")).state_dict()
    heads = {name: tuple(tensor.shape[:2]) for name, tensor in state.items() if name.startswith("f")}
    assert heads == {
        "f8_3.weight": (64, 512),
        "f8_4.weight": (128, 1024),
        "f8_5.weight": (256, 4096),
        "f9.weight": (448, 448),
    }
    assert {"conv1a.weight", "b7.conv_branch2b2.weight", "bn7.running_var"} <= state.keys()


def test_labels_of_cells_by_hand() -> None:
    mask = torch.full((1, 4, 5), IGNORE)
    mask[0, :2, :2] = torch.tensor([[1, 0], [1, IGNORE]])
    mask[0, :2, 2:4] = torch.tensor([[IGNORE, IGNORE], [IGNORE, 2]])
    mask[0, :2, 4] = torch.tensor([2, 2])  # a narrower cell at the edge
    mask[0, 2:, :2] = torch.tensor([[2, 0], [0, 2]])
    assert grid_labels(mask, 3, 2).tolist() == [[[1, IGNORE, 2], [0, IGNORE, IGNORE]]]


def brute_loss(affinity: Tensor, labels: Tensor, pairs: Tensor) -> float:
    same, different = [], []
    for b, (p, (i, j)) in product(range(len(labels)), enumerate(pairs.T.tolist())):
        one, other = labels[b].flatten()[i].item(), labels[b].flatten()[j].item()
        if IGNORE in {one, other}:
            continue
        if one == other:
            same.append(-np.log(affinity[b, p].item() + 1e-5))
        else:
            different.append(-np.log(1 + 1e-5 - affinity[b, p].item()))
    return float((np.mean(same) if same else 0) / 2 + (np.mean(different) if different else 0) / 2)


@pytest.mark.parametrize("classes", [[0, 1, 2, IGNORE], [1, IGNORE], [IGNORE]])
def test_loss_equals_a_loop_over_all_pairs(classes: list[int]) -> None:
    generator = torch.Generator().manual_seed(4)
    labels = torch.tensor(classes)[torch.randint(0, len(classes), (2, 6, 7), generator=generator)]
    pairs = torch.tensor(sorted(all_pairs(6, 7, 3))).T
    affinity = torch.rand(2, pairs.shape[1], dtype=torch.float64, generator=generator)
    loss = affinity_loss(affinity, labels, pairs).mean()
    assert loss.item() == pytest.approx(brute_loss(affinity, labels, pairs), abs=1e-12)


def learner() -> AffinityLearner:
    torch.manual_seed(0)
    module = AffinityLearner(
        AffinityNetwork(TinyBackbone()), 2, total_steps=30, radius=3, optimizer=Optimization(lr=0.02)
    )
    module.log = lambda *_args, **_kwargs: None  # type: ignore[method-assign]
    return module


def two_halves() -> Batch:
    """Bright left halves of class 1, dark right halves of class 0, and an unlabelled row of cells."""
    image = torch.zeros(2, 3, 32, 48)
    image[..., :24] = 2.0
    image += 0.1 * torch.randn(image.shape, generator=torch.Generator().manual_seed(1))
    mask = (image[:, 0] > 1).long()
    mask[:, :8] = IGNORE
    return {"image": image, "mask": mask, "weight": torch.full(mask.shape, 255, dtype=torch.uint8)}


def test_the_pairs_of_a_size_are_listed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Since they are copied to the device."""
    _pairs_on.cache_clear()
    sizes = []

    def recorded(size: torch.Size, radius: int) -> torch.Tensor:
        sizes.append(tuple(size))
        return pair_indices(size, radius)

    monkeypatch.setattr("ome.training.affinity.pair_indices", recorded)
    module, batch = learner(), two_halves()
    for parts in (batch, batch, {name: part[..., :32] for name, part in batch.items()}, batch):
        module.training_step(parts)
    assert sizes == [(4, 6), (4, 4)]


def test_training_step_is_the_loss_of_the_network_s_pairs() -> None:
    module, batch = learner(), two_halves()
    features = module.network(batch["image"]).detach()
    pairs = torch.tensor(sorted(all_pairs(4, 6, 3))).T
    cells = features.flatten(2)
    affinity = torch.exp(-(cells[:, :, pairs[0]] - cells[:, :, pairs[1]]).abs().mean(dim=1))
    labels = torch.tensor([[IGNORE] * 6, *[[1, 1, 1, 0, 0, 0]] * 3]).expand(2, 4, 6)
    expected = brute_loss(affinity, labels, pairs)
    assert module.training_step(batch).item() == pytest.approx(expected, rel=1e-4)


def test_training_parts_unlike_cells() -> None:
    module, batch = learner(), two_halves()
    configured: Any = module.configure_optimizers()
    optimizer = configured["optimizer"]
    first = module.training_step(batch).item()
    for _ in range(30):
        optimizer.zero_grad()
        module.training_step(batch).backward()
        optimizer.step()
    assert module.training_step(batch).item() < first / 2


def test_transition_by_hand() -> None:
    # Three cells in a row; affinities .5 between the first two and 1 between the last two; beta 2.
    transition = transition_matrix(np.array([0.5, 1.0]), np.array([[0, 1], [1, 2]]), 3, beta=2.0)
    columns = [[1 / 1.25, 0.25 / 1.25, 0], [0.25 / 2.25, 1 / 2.25, 1 / 2.25], [0, 1 / 2, 1 / 2]]
    np.testing.assert_allclose(transition.toarray(), np.array(columns).T)
    # A cell becomes the mean of its neighbours: 9 * .8, then 9 * .25 / 2.25, then nothing.
    walked = random_walk(np.array([[[9.0, 0.0, 0.0]]]), transition, 1)
    np.testing.assert_allclose(walked, [[[7.2, 1.0, 0.0]]])
    np.testing.assert_allclose(
        random_walk(np.array([[[9.0, 0.0, 0.0]]]), transition, 2), [[[5.96, 1.2444444, 0.5]]], rtol=1e-6
    )


@pytest.mark.parametrize("size", [(6, 9), (2, 3), (1, 1)])
def test_64_sparse_steps_equal_six_squarings_of_the_dense_matrix(size: tuple[int, int]) -> None:
    affinity, pairs = random_affinity(*size, radius=5)
    maps = np.random.default_rng(1).random((3, *size))
    known = {(i, j): value for (i, j), value in zip(pairs.T.tolist(), affinity.tolist(), strict=True)}
    walked = random_walk(maps, transition_matrix(affinity, pairs, maps[0].size, 8.0), 64)
    np.testing.assert_allclose(walked, dense_walk(maps, known, 8.0, 6), rtol=1e-9)


def test_the_transition_holds_neighbours_alone() -> None:
    affinity, pairs = random_affinity(40, 40, radius=5)
    transition = transition_matrix(affinity.astype(np.float32), pairs, 1600, 8.0)
    assert transition.dtype == np.float32
    assert transition.nnz == 2 * pairs.shape[1] + 1600 < 69 * 1600


def test_cams_spread_to_the_edge_of_what_is_alike() -> None:
    tags = np.array([1, 1, 0], np.uint8)
    cams = np.zeros((3, 30, 44), np.float32)
    cams[0, 8:16, 8:16] = 1.0  # one cell of the left half
    cams[1, :, 24:] = 1.0
    pairs = pair_indices((4, 6), 5).numpy()
    left = np.arange(24) % 6 < 3
    affinity = np.where(left[pairs[0]] == left[pairs[1]], 0.95, 0.1).astype(np.float32)
    valid = np.ones((30, 44), bool)
    walked = walk_cams(cams, tags, affinity, pairs, valid)
    assert walked.shape == cams.shape
    assert walked.dtype == np.float32
    assert not walked[2].any()
    assert 0 <= walked.min() <= walked.max() <= 1
    # The first class has filled the left half to its last row, the second has kept the right half.
    assert walked[0, :, :20].min() > 0.9
    assert walked[0, :, 28:].max() < 0.1
    assert walked[1, :, 28:].min() > 0.9
    # Stretched anew: a class that competing has lowered reaches 1 again.
    lowered = walk_cams(cams * np.float32([[[0.25]], [[0.5]], [[1]]]), tags, affinity, pairs, valid)
    np.testing.assert_allclose(lowered, walked, atol=1e-3)


def test_affinity_labels_by_hand() -> None:
    cam = np.zeros((4, 1, 5), np.float32)
    # (1 - max)^4 and ^24: .0081 and 0 at .7; .4096 and .0047 at .2; .815 and .29 at .05; 1 at 0.
    cam[1, 0] = [0.7, 0.2, 0.05, 0.0, 0.3]
    cam[3, 0] = [0.1, 0.1, 0.01, 0.0, 0.4]
    tags = np.array([0, 1, 0, 1], np.uint8)
    valid = np.ones((1, 5), bool)
    label = affinity_label(NoCrf(), cam, tags, valid)
    # The second is background to the stronger of the two alone, the third and fourth to both.
    assert label.tolist() == [[1, IGNORE, IGNORE, IGNORE, 3]]
    assert affinity_label(NoCrf(), cam, tags, valid, (24.0,)).tolist() == [[1, 1, IGNORE, IGNORE, 3]]


def test_pixels_of_two_classes_are_ignored() -> None:
    class Quarrel(NoCrf):
        def winners(self, probabilities: Array, powers: Array) -> NDArray[np.uint8]:
            del probabilities, powers
            return np.array([[[0, 1, 2, 1]], [[1, 1, 2, 2]]], np.uint8)

    cam, tags = np.zeros((3, 1, 4), np.float32), np.array([1, 0, 1], np.uint8)
    cam[0] = 0.5
    label = affinity_label(Quarrel(), cam, tags, np.ones((1, 4), bool))
    assert label.tolist() == [[IGNORE, 0, 2, IGNORE]]


def test_a_checkpoint_says_what_it_is_one_of(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = AffinityNetwork(build_backbone("resnet18", None, 16, in_channels=4)).freeze()
    learner = AffinityLearner(network, 3, total_steps=7, radius=3, optimizer=Optimization(lr=0.02))
    loaded = reloaded(learner, tmp_path / "any.ckpt")
    assert loaded.network.is_frozen
    image = torch.rand(1, 4, 32, 48)
    with torch.no_grad():
        assert torch.equal(loaded.eval()(image), network.eval()(image))
