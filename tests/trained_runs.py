"""Runs whose segmenter was never trained: what reads them cannot tell."""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from ome.inference.card import SegmenterCard
from ome.pipeline.layout import NETWORK
from ome.pipeline.manifest import Manifest
from ome.training.checkpoints import save_network

CLASSES = {"road": (200, 0, 0), "tree": (0, 200, 0), "water": (0, 0, 200)}
CARD = SegmenterCard("fpn", "tu-test_resnet", CLASSES, (1, 2, 3), (0, 1, 2), 64, None, 0.5)


def make_run(folder: Path, stage: str = "seg", network: str = "weak", seed: int = 0) -> Path:
    """Leaves a random segmenter in a folder as `seg` or `refine` would."""
    path = folder / stage / network / NETWORK
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_weights(seed))
    CARD.write(folder / stage / network)
    Manifest(stage, f"{stage}{seed}", {}, {}).write(folder / stage)
    return folder


@cache
def _weights(seed: int) -> bytes:
    """The file of a network's weights: building one takes longer than most of what is tested with it."""
    torch.manual_seed(seed)
    with TemporaryDirectory() as folder:
        save_network(CARD.build(), Path(folder))
        return (Path(folder) / NETWORK).read_bytes()
