"""Runs whose segmenter was never trained: what reads them cannot tell."""

from pathlib import Path

import torch

from ome.inference.card import SegmenterCard
from ome.pipeline.manifest import Manifest
from ome.training.checkpoints import save_network

CLASSES = {"road": (200, 0, 0), "tree": (0, 200, 0), "water": (0, 0, 200)}
CARD = SegmenterCard("fpn", "mobilenet_v2", CLASSES, (1, 2, 3), (0, 1, 2), 64, None, 0.5)


def make_run(folder: Path, stage: str = "seg", network: str = "weak", seed: int = 0) -> Path:
    """Leaves a random segmenter in a folder as `seg` or `refine` would."""
    torch.manual_seed(seed)
    save_network(CARD.build(), folder / stage / network)
    CARD.write(folder / stage / network)
    Manifest(stage, f"{stage}{seed}", {}, {}).write(folder / stage)
    return folder
