"""Exported networks: every backbone and segmenter that can be chosen says what torch says."""

import json
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from omegaconf import OmegaConf
from timm.layers import Conv2dSame
from timm.layers.pool2d_same import AvgPool2dSame, MaxPool2dSame
from timm.layers.std_conv import StdConv2dSame
from torch import Tensor, nn

from ome.data.transforms import to_tensor
from ome.errors import UserError
from ome.geo.image_source import ImageSource
from ome.networks.exchange import trace
from ome.networks.segmenters import Segmenter, build_segmenter
from ome.stages.export import FORMATS, TOLERANCE, write_deepness, write_format
from tests.conftest import CONF
from tests.trained_runs import CARD

# Of the segmenter that `backbone=` brings; the group `encoder` names none.
ENCODERS = sorted(
    {
        chosen.encoder if chosen.name == "resnet38d" else chosen.name
        for path in (CONF / "backbone").glob("*.yaml")
        if not OmegaConf.is_missing(chosen := OmegaConf.load(path), "name")
    }
)
SEGMENTERS = sorted(path.stem for path in (CONF / "segmenter").glob("*.yaml"))
QUICK = ("tf_efficientnet_lite0", "deeplabv3plus", "segmenter.pt2")
DESCRIPTION = {"channels": [1, 2, 3], "tile": 90}


def difference(path: Path, segmenter: Segmenter) -> float:
    return write_format(path, segmenter, partial(trace, segmenter, 3), DESCRIPTION)


@pytest.mark.parametrize("name", FORMATS)
def test_layers_with_tensorflows_padding(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    layers = (
        Conv2dSame(3, 8, 3, stride=2),
        MaxPool2dSame(3, 2),
        Conv2dSame(8, 8, 5, stride=1, padding=7, dilation=3),  # a padding that timm does not heed
        StdConv2dSame(8, 8, 2, stride=2),
        AvgPool2dSame(3, 1),
        Conv2dSame(8, 8, 1, stride=2),
        nn.Conv2d(8, 256 * 4, 1),
        nn.PixelShuffle(16),
    )
    assert difference(tmp_path / name, Segmenter(nn.Sequential(*layers)).eval()) < TOLERANCE


@pytest.mark.parametrize(
    ("encoder", "segmenter", "name"),
    [
        pytest.param(*chosen, marks=[] if chosen == QUICK else [pytest.mark.slow])
        for chosen in product(ENCODERS, SEGMENTERS, FORMATS)
    ],
)
def test_every_network_that_can_be_chosen(encoder: str, segmenter: str, name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    try:
        network = build_segmenter(segmenter, encoder, 4).eval()
    except UserError as error:
        pytest.skip(str(error))
    assert difference(tmp_path / name, network) < TOLERANCE


class Branching(nn.Module):
    """Cannot be traced, whichever the size: it branches on values."""

    def forward(self, image: Tensor) -> Tensor:
        return image if image.sum() > 0 else -image


@pytest.mark.parametrize("name", FORMATS)
def test_what_fails_inside_the_exporters_is_one_line(name: str, tmp_path: Path) -> None:
    segmenter = Segmenter(Branching()).eval()
    with pytest.raises(
        UserError, match=f"{name} cannot be exported from this network: choose another segmenter="
    ) as raised:
        write_format(tmp_path / name, segmenter, partial(trace, segmenter, 3), DESCRIPTION)
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.iterdir())


def test_deepness_finds_what_it_reads(tmp_path: Path) -> None:
    """As the plug-in opens a model (`model_base.py` and `map_processor_segmentation.py` there)."""
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 3 * 16, 4, stride=4), nn.PixelShuffle(4)
    network, path = Segmenter(nn.Sequential(*layers)).eval(), tmp_path / "segmenter_deepness.onnx"
    write_deepness(path, network, replace(CARD, tile=90))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    read = {key: json.loads(value) for key, value in session.get_modelmeta().custom_metadata_map.items()}
    (entry,), (result,) = session.get_inputs(), session.get_outputs()
    assert entry.shape[1:] == [3, read["tiles_size"], read["tile_size"]] == [3, 96, 96]
    assert result.shape[1] == 3
    assert read["model_type"] == "Segmentor"
    assert read["class_names"] == {str(index): name for index, name in enumerate(CARD.classes)}
    assert read["resolution"] == 50  # centimetres
    pixels = np.random.default_rng(0).integers(0, 256, (1, 96, 96, 3), dtype=np.uint8)
    standard = (np.float32(pixels / 255) - read["standardization_mean"]) / read["standardization_std"]
    (probabilities,) = session.run(None, {entry.name: standard.transpose(0, 3, 1, 2).astype(np.float32)})
    with torch.no_grad():
        expected = network(to_tensor(pixels)).softmax(dim=1).numpy()
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)
    confident = np.where(probabilities < read["seg_thresh"], 0, probabilities)
    np.testing.assert_array_equal(confident.argmax(axis=1), expected.argmax(axis=1))
    deep = ImageSource("uint16", 3, ("red", "green", "blue"))
    for card in (replace(CARD, limits=(0, 4000)), replace(CARD, source=deep)):
        with pytest.raises(UserError, match=r"stage\.export\.target=deepness: .* 16-bit images"):
            write_deepness(path, network, card)
