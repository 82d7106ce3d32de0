"""Class maps of one's own: the functions on arrays against those of the stages, and what they refuse."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

import ome
from ome.crf.densecrf import DenseCrf
from ome.crf.inputs import CrfParameters
from ome.errors import UserError
from ome.pseudo.arrays import check_form
from ome.pseudo.uncertainty import pseudo_label as label_of

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (24, 32, 3), dtype=np.uint8)
MAPS = RNG.random((3, 24, 32), dtype=np.float32)


def stretched(maps: NDArray[np.float32]) -> NDArray[np.float32]:
    least, most = maps.min((1, 2), keepdims=True), maps.max((1, 2), keepdims=True)
    return (maps - least) / (most - least + np.float32(1e-5))


def test_maps_become_what_the_stage_makes_of_them() -> None:
    tags = [1, 0, 1]
    maps = stretched(MAPS) * np.array(tags, np.float32)[:, None, None]
    right = label_of(DenseCrf(IMAGE, CrfParameters()), maps)
    # Raw maps of another range, a torch tensor, and maps that are normalised already.
    for raw in (5 * MAPS, torch.from_numpy(5 * MAPS), maps):
        label = ome.pseudo_label(IMAGE, raw, tags)
        assert (label.mask == right.mask).mean() > 0.99
        assert np.abs(label.weight.astype(int) - right.weight).mean() < 2
        assert set(np.unique(label.mask)) <= {0, 2}


def test_maps_of_another_stride_are_resized() -> None:
    small = MAPS[:, ::8, ::8]
    large = F.interpolate(torch.from_numpy(small)[None], size=(24, 32), mode="bilinear", align_corners=False)
    label, right = (ome.pseudo_label(IMAGE, maps) for maps in (small, large[0].numpy()))
    assert (label.mask == right.mask).all()
    assert (label.weight == right.weight).all()


def test_the_crf_is_that_of_the_stages() -> None:
    probabilities = MAPS / MAPS.sum(0)
    right = DenseCrf(IMAGE, CrfParameters(iterations=3)).infer(probabilities)
    for call in (ome.dense_crf, ome.crf):
        assert (call(IMAGE, probabilities, CrfParameters(iterations=3)) == right).all()


@pytest.mark.parametrize(
    ("image", "maps", "tags", "line"),
    [
        (
            IMAGE / 255,
            MAPS,
            None,
            r"an image is \(H, W, 3\) uint8, not .*: give bytes, e.g. \(image \* 255\)",
        ),
        (
            IMAGE.transpose(2, 0, 1),
            MAPS,
            None,
            r"an image is .*: bands are last, give image.transpose\(1, 2, 0\)",
        ),
        (IMAGE[..., 0], MAPS, None, r"an image is .*: give np.stack\(\[image\] \* 3, axis=-1\)"),
        (np.repeat(IMAGE, 2, axis=2), MAPS, None, r"an image is .*: give three bands, e.g. image\[..., "),
        (IMAGE[..., :2], MAPS, None, r"an image is .*: give three bands"),
        (IMAGE.astype(np.uint16), MAPS, None, r"an image is .*: give bytes, e.g. \(image / image.max\(\)"),
        (IMAGE[None], MAPS, None, "an image is .*: give the pixels of one image"),
        ("north.tif", MAPS, None, r"an image is .*: give the pixels of one image, e.g. rasterio.open"),
        (IMAGE, MAPS[0], None, r"class maps are \(C, H, W\) numbers, .*: give maps\[None\] for one class"),
        (IMAGE, MAPS[None], None, r"class maps are .*: give those of one image at a time, e.g. maps\[0\]"),
        (IMAGE, {0: MAPS[0]}, None, r"class maps are .*: give one array, e.g. np.stack of the maps of all"),
        (IMAGE, MAPS * np.nan, None, "class maps have nan, infinite or huge values"),
        (IMAGE, MAPS.astype("float64") * 1e300, None, "class maps have nan, infinite or huge values"),
        (IMAGE, [[[1], [1, 2]]], None, r"class maps are \(C, H, W\) numbers"),
        (IMAGE, np.resize(MAPS, (3, 9, 3)), None, "cams are 9 x 3 .* give maps of the image's form"),
        (IMAGE, MAPS, ["road"], r"tags=.*: give one 0 or 1 for each of the 3 classes"),
        (IMAGE, MAPS, [[1], [1, 0]], r"tags=.*: give one 0 or 1 for each of the 3 classes"),
        (IMAGE, MAPS, [1, 0], r"tags=.*: give one 0 or 1 for each of the 3 classes"),
        (IMAGE, MAPS, [0, 2, 1], r"tags=.*: give one 0 or 1 for each of the 3 classes"),
        (IMAGE, MAPS, [0, 0, 0], "no class is tagged"),
    ],
)
def test_what_does_not_fit_is_one_line(
    image: NDArray[np.uint8], maps: NDArray[np.float32], tags: list[int] | None, line: str
) -> None:
    with pytest.raises(UserError, match=f"^{line}"):
        ome.pseudo_label(image, maps, tags)


@pytest.mark.parametrize(("tags", "classes"), [([1, 0, 1], {255}), ([0, 1, 0], {1})])
def test_an_image_without_any_response_has_no_class_but_a_single_tag(
    tags: list[int], classes: set[int]
) -> None:
    """Raw maps of logits may be negative everywhere; a class chosen by its number would pass for certain."""
    label = ome.pseudo_label(IMAGE, -1 - MAPS, tags)
    assert {*label.mask.ravel()} == {*label.cam_argmax.ravel()} == classes
    assert {*label.weight.ravel()} == ({0} if 255 in classes else {255})


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
def test_tensors_of_every_precision_are_taken(dtype: str) -> None:
    exact = np.round(MAPS * 64) / 64  # as all of them hold it
    tensor = torch.from_numpy(exact).to(getattr(torch, dtype)).requires_grad_()
    ours, theirs = (ome.pseudo_label(IMAGE, maps, [1, 0, 1]) for maps in (tensor, exact))
    assert np.array_equal(ours.mask, theirs.mask)


@pytest.mark.parametrize("stride", [1, 4, 7, 8, 16])
@pytest.mark.parametrize("rounded", [math.floor, round, math.ceil])
def test_maps_of_every_stride_have_the_form_of_the_image(
    stride: int, rounded: Callable[[float], int]
) -> None:
    for size in ((64, 96), (100, 37), (500, 333), (48, 48)):
        rows, columns = (max(1, rounded(side / stride)) for side in size)
        check_form(np.zeros((2, rows, columns), np.float32), size, "maps")
        if size[0] > 2 * size[1] and columns > 3:
            with pytest.raises(UserError, match="of the image's form"):
                check_form(np.zeros((2, columns, rows), np.float32), size, "maps")


@pytest.mark.parametrize(
    ("maps", "line"),
    [
        (MAPS * 9, "probabilities lie in 0..1, not .* give their softmax"),
        (MAPS[:, ::2], "resize them"),
        (np.moveaxis(MAPS, 0, 2), r"classes are first, give np.moveaxis\(probabilities, 2, 0\)"),
        (MAPS / 2, r"probabilities of a pixel sum to .*, not to 1: give their softmax"),
    ],
)
def test_probabilities_that_are_none_are_one_line(maps: NDArray[np.float32], line: str) -> None:
    with pytest.raises(UserError, match=line):
        ome.dense_crf(IMAGE, maps)


SMALL = np.zeros((4, 4, 3), np.uint8)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: ome.pseudo_label(SMALL, np.ones((300, 4, 4))),
            "maps of 300 classes: a mask holds 254 and a back",
        ),
        (
            lambda: ome.pseudo_label(SMALL[:0], np.ones((2, 4, 4))),
            r"an image is \(H, W, 3\) uint8, not \(0, 4, 3\)",
        ),
        (lambda: ome.pseudo_label(SMALL, torch.ones(2, 4, 4).to_sparse()), "class maps are"),
        (lambda: ome.pseudo_label(SMALL, torch.ones(2, 4, 4, device="meta")), "class maps are"),
        (
            lambda: ome.pseudo_label(SMALL, np.ones((2, 4, 4)), labelling={}),
            "labelling is of the type dict: give",
        ),  # type: ignore[arg-type]
        (
            lambda: ome.crf(SMALL, np.full((2, 4, 4), 0.5), {"iterations": 3}),
            "parameters is of the type dict",
        ),
        (
            lambda: ome.pseudo_label(SMALL, np.ma.masked_array(np.ones((2, 4, 4)), mask=True)),
            "an array has masked entries: fill them",
        ),
    ],
)
def test_wrong_arguments_are_one_line(call: Callable[[], object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        call()
