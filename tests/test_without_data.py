"""Pixels without data: nothing that maps say there changes another pixel, from responses to weights."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ome.config.sections import settings_of
from ome.crf.densecrf import DenseCrf
from ome.crf.inputs import CrfParameters
from ome.crf.torch_crf import BatchCrf, TorchCrf
from ome.data.cams import write_cams
from ome.data.tags import TagTable
from ome.data.tiles import Tile
from ome.inference.classifier import CamPredictor
from ome.inference.pseudo_labels import write_pseudo_labels
from ome.inference.tile_scores import score_cams
from ome.inference.user_cams import UserCams
from ome.networks.affinity import pair_indices
from ome.networks.seam import SeamNetwork
from ome.pipeline.layout import cam_path
from ome.pseudo.affinity_label import affinity_label
from ome.pseudo.argmax import strongest, with_background
from ome.pseudo.arrays import normalised
from ome.pseudo.fusion import competing_cams, multi_scale_cams, normalise_cam, replace_zero_cams
from ome.pseudo.labellers import BatchLabeller, Labeller, TileLabeller
from ome.pseudo.random_walk import random_walk, transition_matrix, walk_cams
from ome.pseudo.response import certainty_weight, response_variance
from ome.pseudo.uncertainty import RESPONSE_SCALES, Labelling, PseudoLabel, pseudo_label
from ome.pseudo.variants import AGREEMENT, mask_variants
from ome.stages import ablation, affinity
from ome.stages.refine import _averaged
from tests.conftest import compose_config
from tests.test_crf import random_stack, textured_image
from tests.test_networks import TinyBackbone
from tests.test_uncertainty import NoCrf

Array = NDArray[Any]
Arrays = dict[str, Array]
SIZE = (24, 32)
TAGS = np.array([1, 0, 1], np.uint8)
TILE = Tile("a", 0, 0, *SIZE)
TABLE = TagTable(("x", "y", "z"), (TILE,), TAGS[None], ("train",), np.ones(1, dtype=bool))
ALL = np.ones(SIZE, bool)
VALID = ALL.copy()
VALID[:, :11] = False  # a column of cells of the walk, and a part of the next
VALID[20, 30] = False
IMAGE = textured_image(*SIZE, seed=0) * VALID[..., None].astype(np.uint8)
MAPS = random_stack(3, SIZE, seed=1) * TAGS[:, None, None] * np.float32(0.6)
PAIRS = pair_indices((3, 4), 3).numpy()
AFFINITY = np.random.default_rng(2).uniform(0.4, 1, PAIRS.shape[1]).astype(np.float32)
CONSTANTS = CrfParameters(iterations=3, bilateral_sxy=5.0, bilateral_srgb=20.0)
BACKGROUND = Labelling(background=4.0, agreement=0.5, mask="cam")


def fused(fuse: Callable[..., Tensor], least: float, maps: Array, valid: Array) -> Arrays:
    """Fused maps whose sums lie between `least` and 6 more."""
    of_tile = (torch.from_numpy(array) for array in (6 * maps + np.float32(least), TAGS, valid))
    return {"maps": fuse(*of_tile).numpy()}


def walked(maps: Array, valid: Array) -> Arrays:
    return {"maps": walk_cams(maps, TAGS, AFFINITY, PAIRS, valid)}


def reader_of(valid: Array) -> Any:  # noqa: ANN401 - stands in for a SceneReader
    colours = SimpleNamespace(flat=lambda: [0] * 768)
    index = SimpleNamespace(palette=colours)
    return SimpleNamespace(index=index, image=lambda _: IMAGE, display=lambda _: IMAGE, valid=lambda _: valid)


def averaged(maps: Array, valid: Array) -> Arrays:
    cams = MAPS * valid  # which the export has set to 0 there
    (mean,) = _averaged(lambda _: [maps], lambda _: [cams], TABLE, reader_of(valid))([TILE])
    return {"maps": mean}


def labelled(label: PseudoLabel) -> Arrays:
    return {"mask": label.mask, "cam_argmax": label.cam_argmax, "weight": label.weight}


def by_labeller(labeller: Labeller, maps: Array, valid: Array) -> Arrays:
    return labelled(*labeller([IMAGE], [maps], [valid]))


def numba(labelling: Labelling) -> Labeller:
    return TileLabeller(partial(DenseCrf, parameters=CONSTANTS), labelling)


def in_torch(labelling: Labelling) -> Labeller:
    return BatchLabeller(partial(BatchCrf, parameters=CONSTANTS), labelling, torch.device("cpu"))


def variants(maps: Array, valid: Array | None) -> Arrays:
    crf = DenseCrf(IMAGE, CONSTANTS)
    made = mask_variants(crf, maps, "CAM", RESPONSE_SCALES, [8.0, 4.0], [28, 113], valid)
    weights = {name: level for name, level in made.levels.items() if "weight" in name}
    return made.masks | {"crf": made.crf} | weights


CASES: dict[str, Callable[[Array, Array], Arrays]] = {
    "stretched": partial(fused, normalise_cam, -1),
    "competing": partial(fused, competing_cams, -1),
    "competing without a response": partial(fused, competing_cams, -7),
    "of other programs": lambda maps, valid: {"maps": normalised(maps, SIZE, TAGS, valid)},
    "walked": walked,
    "averaged": averaged,
    "numba": partial(by_labeller, numba(Labelling())),
    "numba, background": partial(by_labeller, numba(BACKGROUND)),
    "torch": partial(by_labeller, in_torch(Labelling())),
    "torch, background": partial(by_labeller, in_torch(BACKGROUND)),
    "variants": variants,
    "affinity labels": lambda maps, valid: {
        "label": affinity_label(DenseCrf(IMAGE, CONSTANTS), maps, TAGS, valid)
    },
}


@pytest.mark.parametrize("case", CASES)
def test_maps_at_pixels_without_data_change_nothing(case: str) -> None:
    result = CASES[case](MAPS, VALID)
    for elsewhere in (np.zeros_like(MAPS), np.ones_like(MAPS), random_stack(3, SIZE, seed=3)):
        other = CASES[case](np.where(VALID, MAPS, elsewhere * TAGS[:, None, None]), VALID)
        for name, array in result.items():
            np.testing.assert_array_equal(other[name], array, name)
            assert len(np.unique(array[..., VALID])) > 1, name
    for name, array in result.items():
        without = 0 if name in {"maps", "weight", "absolute weight"} else 255
        assert (array[..., ~VALID] == without).all(), name


def plain_cams(total: Tensor, tags: Tensor, *, compete: bool) -> Tensor:
    """CAMs by their formulas, of tiles that are valid everywhere."""
    kept = (total * tags[:, :, None, None]).clamp_min(0)
    least, largest = kept.amin((2, 3), keepdim=True), kept.amax((2, 3), keepdim=True)
    stretched = (kept - least) / (largest - least + 1e-5)
    if not compete:
        return stretched
    responses = total.masked_fill((tags == 0)[:, :, None, None], -torch.inf)
    shares = (responses / responses.amax((1, 2, 3), keepdim=True)).softmax(1)
    return (stretched + 0.1) / 1.1 * shares


@pytest.mark.parametrize("pixels", [None, 24 * 32, 3 * 24 * 32])
@pytest.mark.parametrize("compete", [True, False])
def test_cams_of_a_valid_tile_are_those_of_the_formulas_whatever_its_neighbours(
    compete: bool, pixels: int | None
) -> None:
    images = torch.rand(3, 3, *SIZE, generator=torch.Generator().manual_seed(0))
    tags = torch.from_numpy(np.stack([TAGS] * 3))
    valid = torch.from_numpy(np.stack([ALL, VALID, ALL]))
    fuse = partial(multi_scale_cams, lambda views: views - 0.2, images, tags, (1.0,), flip=False)
    made = fuse(pixels=pixels, compete=compete, valid=valid)
    expected = plain_cams(images - 0.2, tags, compete=compete)
    assert torch.equal(made[[0, 2]], expected[[0, 2]])
    assert not torch.equal(made[1], expected[1])
    assert torch.equal(fuse(pixels=pixels, compete=compete), expected)


@pytest.mark.parametrize("kind", [DenseCrf, TorchCrf])
@pytest.mark.parametrize("labelling", [Labelling(), BACKGROUND], ids=["paper", "background"])
def test_labels_of_a_valid_tile_are_those_of_the_formulas_whatever_its_neighbours(
    kind: type[DenseCrf] | type[TorchCrf], labelling: Labelling
) -> None:
    crf = kind(IMAGE, CONSTANTS)
    maps = with_background(MAPS, labelling.background)
    refined = crf.infer(maps)
    argmax, chosen = strongest(refined), strongest(maps if labelling.mask == "cam" else refined)
    variance = response_variance(crf, maps[np.unique(argmax)], RESPONSE_SCALES)
    certainty = np.floor(255 * (1 - (variance - variance.min()) / np.ptp(variance)))
    factor = np.where(argmax == strongest(maps), 1, labelling.agreement)
    labeller, valid = numba(labelling) if kind is DenseCrf else in_torch(labelling), [VALID, ALL, VALID]
    _, label, _ = labeller([IMAGE] * 3, [MAPS] * 3, valid)
    for each in (label, *labeller([IMAGE], [MAPS], [ALL]), pseudo_label(crf, MAPS, labelling)):
        np.testing.assert_array_equal(each.probabilities, refined)
        np.testing.assert_array_equal(each.mask, np.where(chosen < len(MAPS), chosen, 255))
        np.testing.assert_array_equal(each.weight, np.floor(certainty * factor))


def test_variants_and_walks_of_a_valid_tile_are_those_without_validity() -> None:
    for name, array in variants(MAPS, ALL).items():
        np.testing.assert_array_equal(variants(MAPS, None)[name], array, name)
    coarse = F.avg_pool2d(torch.from_numpy(MAPS), 8, ceil_mode=True).numpy()
    steps = random_walk(coarse, transition_matrix(AFFINITY, PAIRS, 12, 8.0), 64)
    upsampled = F.interpolate(torch.from_numpy(steps)[None], SIZE, mode="bilinear")[0]
    tags = torch.from_numpy(TAGS)
    expected = replace_zero_cams(normalise_cam(upsampled, tags), tags)
    np.testing.assert_array_equal(walked(MAPS, ALL)["maps"], expected)


def test_the_walk_stays_among_cells_with_data() -> None:
    valid = ALL.copy()
    valid[:, :16] = False
    inside = PAIRS[:, (PAIRS % 4 >= 2).all(axis=0)]
    pairs = inside // 4 * 2 + inside % 4 - 2
    affinity_inside = AFFINITY[(PAIRS % 4 >= 2).all(axis=0)]
    alone = walk_cams(MAPS[:, :, 16:].copy(), TAGS, affinity_inside, pairs, ALL[:, 16:], steps=2)
    beside = walk_cams(MAPS, TAGS, AFFINITY, PAIRS, valid, steps=2)
    np.testing.assert_allclose(beside[:, :, 16:], alone, atol=1e-4)


def test_a_variance_of_a_pixel_without_data_sets_no_weight() -> None:
    variance, valid = np.array([[0, 5 / 36, 9 / 36]]), np.array([[True, True, False]])
    np.testing.assert_array_equal(certainty_weight(variance, "tile", valid), [[255, 0, 0]])
    np.testing.assert_array_equal(certainty_weight(variance, "absolute", valid), [[255, 113, 0]])


def test_the_crf_gets_no_preference_of_a_pixel_without_data_in_any_run() -> None:
    label = pseudo_label(NoCrf(), MAPS, Labelling(background=2.0), VALID)
    assert (label.probabilities[:, ~VALID].T == [1, 0, 1, 1]).all()
    np.testing.assert_array_equal(label.probabilities[:3, VALID], MAPS[:, VALID])
    # A tagged class that responds nowhere else gets nothing there either.
    absent = np.where(VALID, MAPS * np.array([1, 0, 0], np.float32)[:, None, None], MAPS)
    probabilities = pseudo_label(NoCrf(), absent, Labelling(), VALID).probabilities
    assert (probabilities[:, ~VALID].T == [1, 0, 0]).all()


def test_a_class_that_wins_only_pixels_without_data_is_not_scaled() -> None:
    class Collar(NoCrf):
        def infer(self, probabilities: Array) -> Array:
            refined = super().infer(probabilities)
            refined[2, ~VALID] = 2.0
            return refined

    one = np.where(VALID, np.array([0.5, 0, 0.1], np.float32)[:, None, None], MAPS)
    crf = Collar()
    label = pseudo_label(crf, one, Labelling(), VALID)
    assert crf.runs == 1
    np.testing.assert_array_equal(label.weight, np.where(VALID, 255, 0))


@pytest.mark.parametrize("labeller", [numba(Labelling()), in_torch(Labelling())], ids=["numba", "torch"])
def test_a_tile_without_valid_pixels_has_no_class(labeller: Labeller) -> None:
    made = by_labeller(labeller, MAPS, ~ALL)
    assert (made["mask"] == 255).all()
    assert (made["cam_argmax"] == 255).all()
    assert not made["weight"].any()
    assert not fused(competing_cams, -1, MAPS, ~ALL)["maps"].any()
    np.testing.assert_array_equal(walked(MAPS, ~ALL)["maps"], np.ones_like(MAPS) * TAGS[:, None, None])


def exported(maps_of: Callable[[Sequence[Tile]], Any]) -> Array:
    (maps,) = maps_of([TILE])
    return np.asarray(maps)


def test_exported_cams_and_those_of_other_programs_know_the_validity(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = SeamNetwork(TinyBackbone(), 3, pcm=False, zoom=1.0).eval()
    torch.nn.init.normal_(network.fc8.weight)
    export = {"scales": [1.0], "flip": True, "precision": "32-true", "megapixels": None, "compete": True}
    device = torch.device("cpu")
    np.save(tmp_path / f"{TILE.name}.npy", MAPS)
    for kind in (
        lambda valid: CamPredictor(device, network, reader_of(valid), TABLE, export),  # type: ignore[arg-type]
        lambda valid: UserCams(tmp_path, reader_of(valid), TABLE),
    ):
        part, whole = (exported(kind(valid)) for valid in (VALID, ALL))  # type: ignore[no-untyped-call]
        assert whole[..., ~VALID].any()
        assert not part[..., ~VALID].any()
        assert not np.array_equal(part[..., VALID], whole[..., VALID])


def pseudo_masks(folder: Path, maps: Array) -> None:
    labeller = numba(Labelling())
    write_pseudo_labels(folder, reader_of(VALID), [TILE], lambda _: [maps], labeller, threads=1)


def affinity_labels(folder: Path, maps: Array) -> None:
    config = settings_of(compose_config(["stage=affinity"]), "affinity")
    work: Any = SimpleNamespace(config=config, settings=config.stage, folder=folder)
    affinity._label(work, reader_of(VALID), TABLE, lambda _: [maps])


def ablation_masks(folder: Path, maps: Array) -> None:
    config = settings_of(compose_config(["stage=ablation"]), "ablation")
    made = ablation._variants(config, reader_of(VALID), [TILE], lambda _: [maps], "CAM")
    folder.mkdir()
    np.save(folder / "masks.npy", np.stack([mask for _, _, one in made for mask in one.masks.values()]))


@pytest.mark.parametrize("write", [pseudo_masks, affinity_labels, ablation_masks])
def test_stages_pass_the_validity_on(tmp_path: Path, write: Callable[[Path, Array], None]) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    write(one, MAPS)
    write(other, np.where(VALID, MAPS, TAGS[:, None, None].astype(np.float32)))
    files = [path.relative_to(one) for path in one.rglob("*") if path.is_file()]
    assert files
    for path in files:
        assert (one / path).read_bytes() == (other / path).read_bytes(), path


def undecided_label(maps: Array, _: Path) -> Array:
    return pseudo_label(NoCrf(), maps, Labelling(), ALL).mask


def undecided_affinity_label(maps: Array, _: Path) -> Array:
    return affinity_label(NoCrf(), maps, TAGS, ALL)


def undecided_variants(maps: Array, _: Path) -> Array:
    """Masks, and 255 where a weight is 0."""
    variants = mask_variants(NoCrf(), maps, "CAM", RESPONSE_SCALES, (4.0,), (1,))
    weights = [level for name, level in variants.levels.items() if name != AGREEMENT]
    return np.stack([*variants.masks.values(), *(np.where(level > 0, 0, 255) for level in weights)])


def undecided_scores(maps: Array, folder: Path) -> Array:
    """255 if no pixel of the written CAMs is scored."""
    write_cams(cam_path(folder, TILE), maps, TAGS)
    reader: Any = SimpleNamespace(
        valid=lambda _: ALL,
        has_mask=lambda _: True,
        mask=lambda _: np.zeros(SIZE, np.uint8),
        index=SimpleNamespace(palette=SimpleNamespace(names=("x", "y", "z"))),
    )
    (row,) = score_cams(folder, reader, TABLE, "CAM")
    return np.where(row.fraction > 0, np.zeros(SIZE), 255)


@pytest.mark.parametrize(
    "use", [undecided_label, undecided_affinity_label, undecided_variants, undecided_scores]
)
def test_a_tile_undecided_between_its_tags_has_no_class_wherever_it_is_read(
    use: Callable[[Array, Path], Array], tmp_path: Path
) -> None:
    tied = replace_zero_cams(torch.zeros(3, *SIZE), torch.from_numpy(TAGS)).numpy()
    assert (use(tied, tmp_path / "tied") == 255).all()
    leading = tied.copy()
    leading[2] /= 2
    assert (use(leading, tmp_path / "leading") != 255).any()
