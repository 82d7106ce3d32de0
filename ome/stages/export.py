"""The run's segmenter -> ONNX and torch.export, each compared with the torch network."""

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any, Final

from torch import Tensor, nn
from torch.export import ExportedProgram

from ome.config.segmenting import stage_of_configured_network
from ome.data.transforms import band_statistics
from ome.distributed.collectives import is_rank_zero
from ome.errors import UserError
from ome.extras import require
from ome.files import save_atomically
from ome.inference.card import SegmenterCard
from ome.inference.segmenter_folders import network_folder
from ome.networks.exchange import (
    CHECKED_SIZES,
    INPUT,
    OUTPUT,
    largest_difference,
    load_onnx,
    load_program,
    save_onnx,
    save_program,
    trace,
)
from ome.networks.segmenters import MULTIPLE, Segmenter
from ome.pipeline.stage import Stage, Work
from ome.progress import console

Save = Callable[..., None]
Load = Callable[[Path], Callable[[Tensor], Tensor]]

FORMATS: Final[dict[str, tuple[Save, Load]]] = {
    "segmenter.pt2": (save_program, load_program),
    "segmenter.onnx": (save_onnx, load_onnx),
}

TOLERANCE: Final = 1e-3
"""Largest accepted difference between a logit of an exported network and of the torch network."""


def run(work: Work) -> dict[str, Any]:
    """Writes `segmenter.onnx` and `segmenter.pt2`, on rank 0 only."""
    if not is_rank_zero():
        return {}
    require("export", "stage=export")
    (stage,) = work.inputs
    folder = network_folder(work.inputs[stage], work.settings.network)
    card = SegmenterCard.read(folder)
    segmenter, bands = card.load(folder).eval(), len(card.channels)
    description = describe(card)
    traced = cache(partial(trace, segmenter, bands))
    differences: dict[str, float] = {}
    for name in FORMATS:
        differences[name] = difference = write_format(work.folder / name, segmenter, traced, description)
        console.print(f"{name}: largest difference from torch {difference:.1e}")
    if work.settings.target == "deepness":
        write_deepness(work.folder / "segmenter_deepness.onnx", segmenter, card)
    return {"network": f"{stage}/{folder.name}", "largest_difference": differences}


def write_format(
    path: Path,
    segmenter: Segmenter,
    traced: Callable[[int | None], ExportedProgram],
    description: dict[str, Any],
    *,
    any_size: bool = True,
) -> float:
    """Exports a segmenter for images of any size or, if the format cannot, for images of one tile.

    ONNX has no pooling to a fixed number of cells, as in pspnet, for images of any size.

    Args:
        path: File with the ending of one of `FORMATS`.
        segmenter: The torch network that the exported one is compared with.
        traced: Returns its program for images of the given side in pixels, None for any side.
        description: Metadata, see `describe`.
        any_size: Whether to try images of any size first.

    Returns:
        The largest difference of a logit from torch.

    Raises:
        UserError: The format cannot represent the network for either size.
    """
    save, load = FORMATS[f"segmenter{path.suffix}"]
    bands, side = len(description["channels"]), description["tile"] + -description["tile"] % MULTIPLE
    reason = ""
    for fixed in (None, side) if any_size else (side,):
        sizes = ((1, side, side), (2, side, side)) if fixed else CHECKED_SIZES
        try:
            described = description | {"side": fixed}
            save_atomically(path, partial(save, program=traced(fixed), description=described))
            difference = largest_difference(segmenter, load(path), bands, sizes)
        except Exception as error:  # noqa: BLE001 - exporters raise errors of many types
            reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
            continue
        if difference <= TOLERANCE:
            if fixed and any_size:
                console.print(f"[yellow]{path.name} takes images of {side} x {side} pixels only[/]")
            return difference
        reason = f"it differs from torch by {difference:.1e}"
    path.unlink(missing_ok=True)
    raise UserError(
        f"{path.name} cannot be exported from this network: choose another segmenter=... ({reason[:200]})"
    )


def describe(card: SegmenterCard) -> dict[str, Any]:
    """Metadata needed to use the exported network, as values for JSON."""
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


def write_deepness(path: Path, segmenter: Segmenter, card: SegmenterCard) -> None:
    """Writes an ONNX file that returns probabilities, with the metadata of the QGIS plug-in Deepness.

    Raises:
        UserError: The network takes 16-bit images, which the plug-in cannot scale, or ONNX cannot hold it.
    """
    if card.limits or (card.source is not None and card.source.depth == "uint16"):
        raise UserError(
            "stage.export.target=deepness: the plug-in divides by 255, and the network was trained on "
            "16-bit images: type stage.export.target=null"
        )
    description, side = describe(card), card.tile + -card.tile % MULTIPLE
    metadata = {
        "model_type": "Segmentor",
        "class_names": {str(index): name for index, name in enumerate(card.names)},
        "tiles_size": side,
        "tile_size": side,  # as newer versions of the plug-in read it
        "tiles_overlap": 50,
        "standardization_mean": description["mean"],
        "standardization_std": description["std"],
        "seg_thresh": 0.0,  # the plug-in assigns pixels below the threshold to the first class
    }
    if card.pixel_size:
        metadata["resolution"] = 100 * card.pixel_size  # centimetres
    output = f"{OUTPUT}: probabilities of classes, float32 (batch, classes, height, width)"
    probabilities = Segmenter(nn.Sequential(segmenter.network, nn.Softmax(dim=1))).eval()
    traced = partial(trace, probabilities, len(card.channels))
    write_format(path, probabilities, traced, description | {"output": output} | metadata, any_size=False)
    place = "" if card.pixel_size else ". The training images have no pixel size: set the resolution there"
    console.print(f"{path.name}: for QGIS' plug-in Deepness{place}", markup=False)


STAGE = Stage("export", run, requires=stage_of_configured_network)
