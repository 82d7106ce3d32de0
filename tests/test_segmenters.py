"""Segmentation networks: any size in, the same size out."""

from itertools import product
from pathlib import Path

import pytest
import torch

from ome.errors import UserError
from ome.networks.auxiliary import AuxiliaryHead
from ome.networks.segmenters import SEGMENTERS, build_segmenter
from ome.training.optimizers import Optimization
from ome.training.segmenter import UncertaintyWeightedSegmenter
from ome.training.segmenter_loss import SegmenterLoss
from ome.training.underfitting import PretendedUnderfitting
from tests.test_training import reloaded

PYRAMIDS = [name for name in SEGMENTERS if name != "dpt"]  # which takes plain transformers alone


@pytest.mark.parametrize("name", PYRAMIDS)
def test_output_has_the_input_size_and_every_parameter_learns(name: str) -> None:
    network = build_segmenter(name, "resnet18", 5, in_channels=4)
    logits = network(torch.rand(2, 4, 45, 70))
    assert logits.shape == (2, 5, 45, 70)
    logits.square().sum().backward()
    # Distributed training refuses parameters that take no part.
    assert [n for n, parameter in network.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("name", PYRAMIDS)
def test_the_auxiliary_head_reads_the_third_stage_of_every_segmenter(name: str) -> None:
    network = build_segmenter(name, "resnet18", 5).eval()
    head = AuxiliaryHead(network.third_stage_channels, 5).eval()
    image = torch.rand(1, 3, 64, 96)
    with torch.inference_mode():
        logits, auxiliary = network.with_auxiliary(image, head)
        assert torch.equal(logits, network(image))
        resnet = network.encoder
        stem = resnet.maxpool(resnet.relu(resnet.bn1(resnet.conv1(image))))
        third = resnet.layer3(resnet.layer2(resnet.layer1(stem)))
        expected = torch.nn.functional.interpolate(head(third), (64, 96), mode="bilinear")
    torch.testing.assert_close(auxiliary, expected)
    assert not network.encoder._forward_hooks


@pytest.mark.parametrize("encoder", ["resnet18", "mit_b0", "mobilenet_v2"])
def test_the_auxiliary_head_fits_sizes_and_encoders_and_learns(encoder: str) -> None:
    network = build_segmenter("segformer", encoder, 5)
    head = AuxiliaryHead(network.third_stage_channels, 5)
    logits, auxiliary = network.with_auxiliary(torch.rand(2, 3, 45, 70), head)
    assert logits.shape == auxiliary.shape == (2, 5, 45, 70)
    auxiliary.square().sum().backward()
    assert [n for n, parameter in head.named_parameters() if parameter.grad is None] == []
    assert next(network.encoder.parameters()).grad is not None


def test_the_auxiliary_head_is_the_published_one() -> None:
    shapes = {name: list(tensor.shape) for name, tensor in AuxiliaryHead(1024, 19).named_parameters()}
    assert shapes == {
        "0.weight": [256, 1024, 3, 3],
        "1.weight": [256],
        "1.bias": [256],
        "4.weight": [19, 256, 1, 1],
        "4.bias": [19],
    }


def test_padding_does_not_change_sizes_that_fit() -> None:
    network = build_segmenter("unet", "resnet18", 3).eval()
    image = torch.rand(1, 3, 64, 96)
    with torch.inference_mode():
        assert torch.equal(network(image), network.network(image))


def test_encoder_weights_are_loaded(tmp_path: Path) -> None:
    torch.manual_seed(0)
    donor = build_segmenter("fpn", "mobilenet_v2", 2).encoder.state_dict()
    donor["classifier.1.weight"] = torch.zeros(1000, 1280)
    torch.save(donor, tmp_path / "mobilenet_v2.pth")
    network = build_segmenter("unet", "mobilenet_v2", 2, str(tmp_path / "mobilenet_v2.pth"))
    assert all(torch.equal(value, donor[name]) for name, value in network.encoder.state_dict().items())


DILATING = ("pspnet", "deeplabv3plus")
UNDILATED = ("vgg11", "densenet121", "swin_tiny_patch4_window7_224", "hrnet_w18_small", "pvt_v2_b0")


@pytest.mark.parametrize(
    ("name", "encoder", "message"),
    [
        ("deeplab3plus", "resnet18", "deeplabv3plus, dpt, fpn, pspnet.*did you mean 'deeplabv3plus'"),
        ("unet", "resnet38d", "segmenter.encoder=resnet50"),
        ("unet", "resnet1o1", "resnet101"),
        *(
            (*pair, "it cannot be dilated; type segmenter=fpn, which")
            for pair in product(DILATING, UNDILATED)
        ),
        # No other segmenter takes this one.
        *(
            (name, "mixer_b16_224", "pattern; use another, such")
            for name in (*DILATING, "unet", "fpn", "upernet")
        ),
    ],
)
def test_unsuitable_segmenters_are_refused(name: str, encoder: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        build_segmenter(name, encoder, 2)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("head", [False, True])
def test_a_checkpoint_reloads_with_nothing_else_at_hand(tmp_path: Path, *, head: bool) -> None:
    torch.manual_seed(0)
    network = build_segmenter("fpn", "resnet18", 3, in_channels=4)
    learner = UncertaintyWeightedSegmenter(
        network,
        total_steps=7,
        optimizer=Optimization(lr=0.3),
        loss=SegmenterLoss(
            class_weights=[1.0, 2.0, 3.0], underfit=PretendedUnderfitting("pow"), auxiliary_weight=0.4
        ),
        auxiliary=AuxiliaryHead(network.third_stage_channels, 3) if head else None,
    )
    loaded = reloaded(learner, tmp_path / "any.ckpt")
    generator = torch.Generator().manual_seed(1)
    batch = {
        "image": torch.rand(2, 4, 32, 48, generator=generator),
        "mask": torch.randint(0, 3, (2, 32, 48), generator=generator),
        "weight": torch.full((2, 32, 48), 255, dtype=torch.uint8),
    }
    losses = []
    for module in (learner.eval(), loaded.eval()):
        module.log = lambda *_args, **_kwargs: None
        losses.append(module.training_step(batch).item())
    assert losses[0] == losses[1]
