"""The run's segmenter -> ONNX and torch.export, each compared with what it was made of."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

from torch import Tensor

from ome.config.segmenting import read_card, stage_of_configured_network
from ome.data.transforms import band_statistics
from ome.distributed.collectives import is_rank_zero
from ome.errors import UserError
from ome.extras import require
from ome.files import save_atomically
from ome.inference.card import SegmenterCard, network_folder
from ome.networks.exchange import (
    INPUT,
    OUTPUT,
    largest_difference,
    load_onnx,
    load_program,
    save_onnx,
    save_program,
    trace,
)
from ome.networks.segmenters import MULTIPLE
from ome.pipeline.stage import Stage, Work
from ome.progress import console

Save = Callable[..., None]
Read = Callable[[Path], Callable[[Tensor], Tensor]]

TOLERANCE: Final = 1e-3
"""Difference of a logit beyond which a format does not say the same as torch."""


def run(work: Work) -> dict[str, Any]:
    """Writes `segmenter.onnx` and `segmenter.pt2`; other processes only wait."""
    if not is_rank_zero():
        return {}
    require("export", "stage=export")
    (stage,) = work.inputs
    folder = network_folder(work.inputs[stage], work.settings.network)
    card = read_card(work.config, folder)
    segmenter, bands = card.load(folder).eval(), len(card.channels)
    description = describe(card)
    program = trace(segmenter, bands)
    formats: dict[str, tuple[Save, Read]]
    formats = {"segmenter.pt2": (save_program, load_program), "segmenter.onnx": (save_onnx, load_onnx)}
    differences: dict[str, float] = {}
    for name, (save, read) in formats.items():
        path = work.folder / name
        save_atomically(path, partial(save, program=program, description=description))
        difference = largest_difference(segmenter, read(path), bands)
        if difference > TOLERANCE:
            # Pooling to a fixed number of cells, as in pspnet, has no ONNX for images of any size.
            side = card.tile + -card.tile % MULTIPLE
            sizes = ((1, side, side), (2, side, side))
            fixed = partial(
                save, program=trace(segmenter, bands, side), description=description | {"side": side}
            )
            save_atomically(path, fixed)
            difference = largest_difference(segmenter, read(path), bands, sizes)
            console.print(f"[yellow]{name} takes images of {side} x {side} pixels only[/]", highlight=False)
        if not difference <= TOLERANCE:
            raise UserError(f"{name} gives other values than torch: choose another segmenter=...")
        console.print(f"{name}: largest difference from torch {difference:.1e}", highlight=False)
        differences[name] = difference
    return {"network": f"{stage}/{folder.name}", "largest_difference": differences}


def describe(card: SegmenterCard) -> dict[str, Any]:
    """What one must know to use the exported network; every value can be written as JSON."""
    mean, std = band_statistics(len(card.channels))
    return {
        "classes": list(card.names),
        "colours": [list(colour) for colour in card.colours],
        "channels": list(card.channels),
        "mean": mean,
        "std": std,
        "input": f"{INPUT}: float32 (batch, bands, height, width), (bytes / 255 - mean) / std",
        "output": f"{OUTPUT}: float32 (batch, classes, height, width); softmax over classes: probabilities",
        "size_multiple": MULTIPLE,
        "side": None,
        "tile": card.tile,
        "range_of_16_bits": list(card.limits) if card.limits else None,
        "pixel_size_metres": card.pixel_size,
    }


STAGE = Stage("export", run, requires=stage_of_configured_network)
