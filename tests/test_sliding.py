import threading
import tracemalloc

import numpy as np
import pytest
import torch

from ome.errors import UserError
from ome.geo import blending, sliding
from ome.geo.blending import blending_window
from ome.geo.sliding import predict_windows
from ome.geo.windows import rows_of_part, window_starts
from ome.networks.views import flip_and_scale

SCENE = np.random.default_rng(0).integers(0, 256, (53, 71, 3)).astype(np.uint8)


def read(row: int, column: int, height: int, width: int) -> np.ndarray:
    assert row >= 0
    assert column >= 0
    window = SCENE[row : row + height, column : column + width]
    assert window.shape == (height, width, 3), "read outside the scene"
    return window


def position_dependent(batch: np.ndarray) -> np.ndarray:
    """Three maps that depend on the pixel, on its place in the window and on the whole window."""
    pixels = batch.astype(np.float32) / 255
    place = np.linspace(0, 1, batch.shape[1], dtype=np.float32)[None, :, None] * np.ones(
        batch.shape[:3], "f4"
    )
    return np.stack(
        [pixels[..., 0], place, np.ones_like(place) * pixels.mean((1, 2, 3))[:, None, None]], axis=1
    )


def per_pixel(batch: np.ndarray) -> np.ndarray:
    return np.moveaxis(batch.astype(np.float32) / 255, -1, 1)


def predict_scene(predict, size, stride, *, height=53, width=71, batch=3) -> np.ndarray:  # noqa: ANN001
    blocks = list(predict_windows(read, height, width, predict, 3, size=size, stride=stride, batch=batch))
    heights = [block.probabilities.shape[1] for block in blocks]
    assert [block.row for block in blocks] == np.cumsum([0, *heights[:-1]]).tolist()
    assert max(heights) <= size
    result = np.concatenate([block.probabilities for block in blocks], axis=1)
    assert result.dtype == np.float32
    assert result.shape == (3, height, width)
    return result


@pytest.mark.parametrize(("size", "stride"), [(16, 16), (16, 8), (16, 5), (20, 1), (53, 30)])
def test_equals_accumulating_the_whole_scene_at_once(size: int, stride: int) -> None:
    total, weights = np.zeros((3, 53, 71)), np.zeros((53, 71))
    for row in {min(start, 53 - size) for start in range(0, 53, stride)}:
        for column in {min(start, 71 - size) for start in range(0, 71, stride)}:
            here = slice(row, row + size), slice(column, column + size)
            total[:, *here] += position_dependent(SCENE[here][None])[0] * blending_window(size)
            weights[here] += blending_window(size)
    np.testing.assert_allclose(predict_scene(position_dependent, size, stride), total / weights, atol=1e-5)


@pytest.mark.parametrize("stride", [16, 9, 4])
def test_a_predictor_blind_to_position_leaves_no_seam(stride: int) -> None:
    np.testing.assert_allclose(
        predict_scene(per_pixel, 16, stride), np.moveaxis(SCENE / 255, -1, 0), atol=1e-6
    )


def test_stride_equal_to_size_is_plain_tiling() -> None:
    result = predict_scene(position_dependent, 16, 16, height=48, width=64)
    for row in range(0, 48, 16):
        for column in range(0, 64, 16):
            here = slice(row, row + 16), slice(column, column + 16)
            np.testing.assert_allclose(result[:, *here], position_dependent(SCENE[here][None])[0], atol=1e-6)


@pytest.mark.parametrize("size", [16, 53])
def test_going_on_at_any_row_gives_the_same_to_the_bit(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sliding, "ROWS", 3)
    options = {"size": size, "stride": 7, "batch": 2}
    whole = list(predict_windows(read, 53, 71, position_dependent, 3, **options))
    assert max(block.probabilities.shape[1] for block in whole) == 3
    for number, block in enumerate(whole):
        rest = list(predict_windows(read, 53, 71, position_dependent, 3, first_row=block.row, **options))
        assert [one.row for one in rest] == [one.row for one in whole[number:]]
        for one, other in zip(rest, whole[number:], strict=True):
            np.testing.assert_array_equal(one.probabilities, other.probabilities)


@pytest.mark.parametrize(("height", "width"), [(10, 71), (53, 1), (3, 4), (1, 1)])
def test_a_scene_smaller_than_the_window(height: int, width: int) -> None:
    result = predict_scene(per_pixel, 32, 16, height=height, width=width)
    np.testing.assert_allclose(result, np.moveaxis(SCENE[:height, :width] / 255, -1, 0), atol=1e-6)


def test_small_scenes_are_extended_by_reflection() -> None:
    images = []

    def predict(batch: np.ndarray) -> np.ndarray:
        images.append(batch)
        return per_pixel(batch)

    predict_scene(predict, 8, 8, height=6, width=5)
    rows, columns = [0, 1, 2, 3, 4, 5, 4, 3], [0, 1, 2, 3, 4, 3, 2, 1]
    np.testing.assert_array_equal(images[0][0], SCENE[np.ix_(rows, columns)])


def test_batches_are_no_larger_than_asked() -> None:
    shapes = []

    def predict(batch: np.ndarray) -> np.ndarray:
        shapes.append(batch.shape)
        return np.full((len(batch), 3, *batch.shape[1:3]), 1 / 3, dtype=np.float32)

    result = predict_scene(predict, 16, 8, batch=4)
    np.testing.assert_allclose(result, 1 / 3, atol=1e-6)
    assert set(shapes) == {(4, 16, 16, 3)}


def test_mirrored_views_are_mirrored_back() -> None:
    def left_to_right(images: torch.Tensor) -> torch.Tensor:
        ramp = torch.linspace(0, 1, images.shape[3]).expand(images.shape[0], *images.shape[2:])
        return torch.stack([images[:, 0], ramp], dim=1)

    images = torch.rand(1, 3, 8, 16)
    mean = flip_and_scale(left_to_right, images, flip=True)
    ramp = torch.linspace(0, 1, 16)
    views = [torch.stack([images[0, 0], one.expand(8, 16)]).softmax(dim=0) for one in (ramp, ramp.flip(0))]
    torch.testing.assert_close(mean[0], (views[0] + views[1]) / 2)


@pytest.mark.parametrize("flip", [True, False])
def test_d4_is_the_mean_of_eight_orientations(flip: bool) -> None:
    """Each turned, predicted and turned back by numpy; of windows that are not square."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, 3, 12, 20, generator=generator)
    network = torch.nn.Conv2d(3, 4, (3, 5), stride=2, padding=(1, 2)).requires_grad_(False)

    def probabilities(view: np.ndarray, scale: float) -> np.ndarray:
        size = tuple(round(side * scale) for side in view.shape[-2:])
        scaled = torch.nn.functional.interpolate(torch.from_numpy(view.copy()), size=size, mode="bilinear")
        logits = torch.nn.functional.interpolate(network(scaled), size=view.shape[-2:], mode="bilinear")
        return logits.softmax(dim=1).numpy()

    expected = np.zeros((2, 4, 12, 20), dtype=np.float32)
    for scale in (0.5, 1.0):
        for turns in range(4):
            turned = np.rot90(images.numpy(), turns, (2, 3))
            expected += np.rot90(probabilities(turned, scale), -turns, (2, 3)) / 16
            mirrored = probabilities(turned[:, :, ::-1], scale)[:, :, ::-1]
            expected += np.rot90(mirrored, -turns, (2, 3)) / 16
    result = flip_and_scale(network, images, (0.5, 1.0), flip, "d4")
    np.testing.assert_allclose(result.numpy(), expected, atol=1e-5)
    assert np.abs(flip_and_scale(network, images, (0.5, 1.0), flip).numpy() - expected).max() > 0.01


def test_memory_is_a_band_of_rows_whatever_the_height(monkeypatch: pytest.MonkeyPatch) -> None:
    def blank(_row: int, _column: int, height: int, width: int) -> np.ndarray:
        return np.zeros((height, width, 3), dtype=np.uint8)

    def zeros(*shape: int) -> torch.Tensor:
        return torch.from_numpy(np.zeros(shape, np.float32))  # which tracemalloc sees

    monkeypatch.setattr(blending.torch, "zeros", zeros)
    tracemalloc.start()
    for _ in predict_windows(blank, 3200, 512, per_pixel, 3, size=32, stride=16, batch=2):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    band, scene = (3 * rows * 512 * 4 for rows in (32, 3200))
    assert band < peak < scene / 10


def test_windows_cover_an_axis_and_the_last_is_shifted_to_its_edge() -> None:
    assert window_starts(100, 40, 30) == [0, 30, 60]
    assert window_starts(101, 40, 30) == [0, 30, 60, 61]
    assert window_starts(40, 40, 30) == [0]
    assert window_starts(7, 40, 30) == [0]
    assert window_starts(100, 10, 45) == [0, 45, 90]


def test_gaps_and_wrong_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"stride is 17, must be within 1\.\.16"):
        predict_scene(per_pixel, 16, 17)
    with pytest.raises(ValueError, match=r"gave shape \(3, 1, 16, 16\), expected \(3, 3, 16, 16\)"):
        predict_scene(lambda batch: per_pixel(batch)[:, :1], 16, 16)
    with pytest.raises(ValueError, match="scales is empty"):
        flip_and_scale(lambda images: images, torch.zeros(1, 3, 8, 8), scales=())


def test_flip_and_scale_is_the_mean_softmax_of_all_views() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, 3, 12, 16, generator=generator)
    network = torch.nn.Conv2d(3, 4, 3, stride=2, padding=1).requires_grad_(False)

    expected = torch.zeros(2, 4, 12, 16)
    for size in [(6, 8), (12, 16)]:
        for mirror in (False, True):
            view = torch.nn.functional.interpolate(images, size=size, mode="bilinear")
            logits = network(torch.flip(view, [3]) if mirror else view)
            logits = torch.nn.functional.interpolate(logits, size=(12, 16), mode="bilinear")
            expected += torch.softmax(torch.flip(logits, [3]) if mirror else logits, 1) / 4
    result = flip_and_scale(network, images, scales=(0.5, 1.0), flip=True)
    torch.testing.assert_close(result, expected)
    torch.testing.assert_close(flip_and_scale(network, images).sum(1), torch.ones(2, 12, 16))


@pytest.mark.parametrize("parts", [1, 2, 3, 8])
@pytest.mark.parametrize(("size", "stride"), [(16, 8), (16, 16), (16, 5), (64, 32)])
def test_parts_of_a_scene_are_the_whole_to_the_last_bit(size: int, stride: int, parts: int) -> None:
    whole = predict_scene(position_dependent, size, stride)
    rows = [rows_of_part(53, size, stride, part, parts) for part in range(parts)]
    assert [row for part in rows for row in part] == list(range(53))
    together = [
        block.probabilities
        for part in rows
        for block in predict_windows(
            read,
            53,
            71,
            position_dependent,
            3,
            size=size,
            stride=stride,
            batch=3,
            first_row=part.start,
            stop_row=part.stop,
        )
    ]
    np.testing.assert_array_equal(np.concatenate(together, axis=1), whole)


def test_what_comes_next_is_read_while_windows_are_predicted() -> None:
    asked: list[int] = []

    def counted(row: int, column: int, height: int, width: int) -> np.ndarray:
        asked.append(threading.get_ident())
        return read(row, column, height, width)

    blocks = predict_windows(counted, 53, 71, per_pixel, 3, size=16, stride=8, batch=1)
    next(blocks)
    before = threading.active_count()
    blocks.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before - 1, "the thread ends with the iteration"
    assert set(asked).isdisjoint({threading.get_ident()})
    assert len(asked) < 16, "not far ahead"


def test_damage_met_while_reading_ahead_is_raised_where_the_rows_are_taken() -> None:
    def damaged(row: int, column: int, height: int, width: int) -> np.ndarray:
        if row > 8:
            raise UserError("the scene is damaged")
        return read(row, column, height, width)

    blocks = predict_windows(damaged, 53, 71, per_pixel, 3, size=16, stride=8, batch=2)
    assert next(blocks).row == 0
    with pytest.raises(UserError, match="the scene is damaged"):
        list(blocks)


def test_windows_without_valid_pixels_are_neither_read_nor_predicted() -> None:
    measured = np.zeros((53, 71), dtype=bool)
    measured[20:30, 25:45] = True
    asked: list[tuple[int, ...]] = []
    sizes: list[int] = []

    def counted(*window: int) -> np.ndarray:
        asked.append(window)
        return read(*window)

    def predict(batch: np.ndarray) -> np.ndarray:
        sizes.append(len(batch))
        return per_pixel(batch)

    def valid(row: int, column: int, height: int, width: int) -> np.ndarray:
        return measured[row : row + height, column : column + width]

    blocks = list(predict_windows(counted, 53, 71, predict, 3, size=16, stride=16, batch=8, valid=valid))
    np.testing.assert_array_equal(np.concatenate([block.valid for block in blocks]), measured)
    result = np.concatenate([block.probabilities for block in blocks], axis=1)
    # Valid pixels lie in the windows at row 16 and at columns 16 and 32 alone.
    predicted = np.zeros((53, 71), dtype=bool)
    predicted[16:32, 16:48] = True
    np.testing.assert_allclose(result, np.where(predicted, np.moveaxis(SCENE / 255, -1, 0), 0), atol=1e-6)
    assert asked == [(16, 16, 16, 32)]
    assert sizes == [2]
