"""Precisions: which is chosen, and that what computes in it stays close to float32."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from ome.stages.predictor import Predictor
from ome.training.hardware import autocast, channels_last, decided_precision, has_bf16

CPU = torch.device("cpu")


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="the kernel's own list of flags is Linux'")
def test_a_processor_has_bf16_where_the_kernel_says_so() -> None:
    flags = set(Path("/proc/cpuinfo").read_text().split())
    assert has_bf16(CPU) == bool(flags & {"avx512_bf16", "amx_bf16", "bf16"})


def test_a_named_precision_is_taken_and_auto_is_decided() -> None:
    assert decided_precision("32-true", CPU) == "32-true"
    assert decided_precision("16-mixed", CPU) == "16-mixed"
    assert decided_precision("auto", CPU) == ("bf16-mixed" if has_bf16(CPU) else "32-true")


@pytest.mark.parametrize(("precision", "dtype"), [("32-true", torch.float32), ("bf16-mixed", torch.bfloat16)])
def test_autocast_is_that_of_the_name(precision: str, dtype: torch.dtype) -> None:
    with autocast(CPU, precision):
        assert nn.Conv2d(1, 1, 3)(torch.rand(1, 1, 5, 5)).dtype == dtype


def test_channels_last_changes_the_layout_and_nothing_else() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 2, 3)).eval()
    image = torch.rand(2, 3, 9, 9)
    before = network(image)
    assert channels_last(network)[0].weight.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(network(image), before)


def test_predictions_in_bf16_are_averaged_in_float32() -> None:
    torch.manual_seed(0)
    network = nn.Conv2d(3, 4, 3, padding=1)
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    full = Predictor(network, CPU, (1.0, 1.5), flip=True)(images)
    mixed = Predictor(network, CPU, (1.0, 1.5), flip=True, precision="bf16-mixed")(images)
    assert mixed.dtype == np.float32
    assert not np.array_equal(mixed, full)
    np.testing.assert_allclose(mixed, full, atol=0.02)
    np.testing.assert_allclose(mixed.sum(axis=1), 1, atol=1e-6)  # bf16 would be off by 4e-3
