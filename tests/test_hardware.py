"""Precisions: which is chosen, and that what computes in it stays close to float32."""

import copy
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from timm.layers import BatchNormAct2d
from torch import nn

from ome.config.schema.general import Precision
from ome.data.transforms import look_up, to_device, to_tensor
from ome.distributed.batchnorm import CpuSyncBatchNorm, synchronise_batchnorm
from ome.inference.predictor import Predictor
from ome.networks.backbones import build_backbone
from ome.training.hardware import autocast, channels_last, decided_precision, has_bf16

CPU = torch.device("cpu")


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="the kernel's own list of flags is Linux'")
def test_a_processor_has_bf16_where_the_kernel_says_so() -> None:
    flags = set(Path("/proc/cpuinfo").read_text().split())
    assert has_bf16(CPU) == bool(flags & {"avx512_bf16", "amx_bf16", "bf16"})


def test_a_named_precision_is_taken_and_auto_is_decided() -> None:
    assert decided_precision("32-true", CPU) == "32-true"
    assert decided_precision("16-mixed", torch.device("cuda")) == "16-mixed"
    assert decided_precision("auto", CPU) == ("bf16-mixed" if has_bf16(CPU) else "32-true")


@pytest.mark.parametrize(("precision", "dtype"), [("32-true", torch.float32), ("bf16-mixed", torch.bfloat16)])
def test_autocast_is_that_of_the_name(precision: str, dtype: torch.dtype) -> None:
    with autocast(CPU, precision):
        assert nn.Conv2d(1, 1, 3)(torch.rand(1, 1, 5, 5)).dtype == dtype


@pytest.mark.parametrize("precision", get_args(Precision))
def test_predictions_compute_in_the_precision_of_trainings(precision: str) -> None:
    decided: Any = decided_precision(precision, CPU)
    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = pl.Trainer(accelerator="cpu", precision=decided, enable_model_summary=False, **quiet)
    assert trainer.precision == decided  # which Lightning changes on some devices
    layer, image = nn.Conv2d(1, 1, 3), torch.rand(1, 1, 5, 5)
    with trainer.precision_plugin.forward_context():
        trained = layer(image)
    with autocast(CPU, precision):
        assert torch.equal(layer(image), trained)


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
    assert mixed.dtype == torch.float32
    assert not torch.equal(mixed, full)
    np.testing.assert_allclose(mixed, full, atol=0.02)
    np.testing.assert_allclose(mixed.sum(dim=1), 1, atol=1e-6)  # bf16 would be off by 4e-3


@pytest.mark.parametrize("shape", [(5, 7, 3), (2, 5, 7, 4)])
def test_values_looked_up_on_a_device_are_those_of_the_processor(shape: tuple[int, ...]) -> None:
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    assert torch.equal(look_up(torch.from_numpy(image)), to_tensor(image))
    assert torch.equal(to_device(image, CPU), to_tensor(image))


@pytest.mark.parametrize("kind", [nn.BatchNorm2d, BatchNormAct2d])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_shared_batchnorm_takes_what_autocast_gives_and_keeps_statistics_in_float32(
    dtype: torch.dtype, kind: type[nn.BatchNorm2d]
) -> None:
    torch.manual_seed(0)
    expected, layers = kind(3), nn.Sequential(kind(3))
    synchronise_batchnorm(layers, CPU)
    images = [(100 + torch.rand(4, 3, 9, 9)).to(dtype).requires_grad_() for _ in range(2)]
    images[1].data.copy_(images[0])
    target, outputs = torch.rand(4, 3, 9, 9), [expected(images[0]), layers(images[1])]
    for output in outputs:
        (output.float() * target).sum().backward()
    assert outputs[1].dtype == dtype
    close = {"rtol": 1e-4, "atol": 1e-4} if dtype == torch.float32 else {"rtol": 1e-2, "atol": 1e-2}
    torch.testing.assert_close(outputs[1], outputs[0], **close)
    torch.testing.assert_close(layers[0].running_mean, expected.running_mean)
    torch.testing.assert_close(layers[0].running_var, expected.running_var, rtol=1e-4, atol=1e-6)
    assert images[0].grad is not None
    torch.testing.assert_close(images[1].grad, images[0].grad, **close)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("encoder", ["resnet18", "tf_efficientnet_lite0"])
def test_every_batchnorm_is_shared_and_computes_what_it_did(encoder: str, device: str) -> None:
    """Those of timm have an activation, which torch's own conversion for GPUs drops."""
    torch.manual_seed(0)
    plain = build_backbone(encoder, None, 32).eval()
    shared, image = copy.deepcopy(plain), torch.rand(1, 3, 64, 64)
    synchronise_batchnorm(shared, torch.device(device))
    kinds = nn.SyncBatchNorm if device == "cuda" else CpuSyncBatchNorm
    layers = [layer for layer in shared.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    assert layers
    assert all(isinstance(layer, kinds) for layer in layers)
    assert shared.state_dict().keys() == plain.state_dict().keys()
    torch.testing.assert_close(shared(image).final, plain(image).final)


@pytest.mark.parametrize(
    ("chosen", "spins"),
    [({}, "10000"), ({"GOMP_SPINCOUNT": "5"}, "5"), ({"OMP_WAIT_POLICY": "ACTIVE"}, None)],
    ids=["nothing", "the rounds", "the policy"],
)
@pytest.mark.parametrize("module", ["ome", "ome.run"])
def test_waiting_threads_sleep_soon_unless_chosen_otherwise(
    chosen: dict[str, str], spins: str | None, module: str
) -> None:
    """Before torch is loaded, after which the variable has no effect."""
    code = (
        "import os, runpy, sys\n"
        "sys.argv[1:] = ['--help']\n"
        "try: runpy.run_module(sys.argv[0], run_name='__main__')\n"
        "except SystemExit: pass\n"
        "print(os.environ.get('GOMP_SPINCOUNT'), file=sys.stderr)\n"
    )
    code = code.replace("sys.argv[0]", repr(module))
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("GOMP", "OMP_WAIT"))}
    done = subprocess.run(
        [sys.executable, "-c", code], env=kept | chosen, capture_output=True, text=True, check=True
    )
    assert done.stderr.split()[-1] == str(spins)
