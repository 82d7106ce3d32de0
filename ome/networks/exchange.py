"""Exports segmenters to formats that do not need this package: ONNX and torch.export."""

import json
import logging
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import timm.layers.padding
import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from ome.networks.segmenters import MULTIPLE, Segmenter

INPUT, OUTPUT = "image", "logits"

CHECKED_SIZES: Final = ((1, 2 * MULTIPLE, 4 * MULTIPLE), (2, 5 * MULTIPLE, 3 * MULTIPLE))
"""Batch, height and width of the random images for comparisons; other than those of the traced example."""


def trace(segmenter: Segmenter, bands: int, side: int | None = None) -> ExportedProgram:
    """Exports a segmenter as a torch program for any number of images.

    The program does not pad images to a multiple: the padding depends on the size, and an exported program
    has no branches.

    Args:
        segmenter: In eval mode, on the CPU.
        bands: Bands of its images.
        side: Side of square images, a multiple of `MULTIPLE`; None for images of any size.

    Returns:
        A program that computes logits (B, C, H, W) of images (B, bands, H, W). Without `side`, H and W are
        any multiples of `MULTIPLE` larger than `MULTIPLE` itself.
    """
    dynamic: dict[int, Any] = {0: Dim("batch", min=1, max=4096)}
    if side is None:
        dynamic[2] = MULTIPLE * Dim("rows", min=2, max=1024)
        dynamic[3] = MULTIPLE * Dim("columns", min=2, max=1024)
    height, width = (side, side) if side else (3 * MULTIPLE, 4 * MULTIPLE)
    example = torch.zeros(3, bands, height, width)
    with torch.no_grad(), _quiet(), _constant_same_padding():
        return torch.export.export(segmenter.network, (example,), dynamic_shapes=(dynamic,))


def save_program(path: Path, program: ExportedProgram, description: Mapping[str, Any]) -> None:
    """Writes a `.pt2` with the description in its extra file `description.json`."""
    stream = BytesIO()  # torch would write the name of a file into it
    torch.export.save(program, stream, extra_files={"description.json": json.dumps(description)})
    path.write_bytes(stream.getbuffer())


def load_program(path: Path) -> Callable[[Tensor], Tensor]:
    """Reads a `.pt2` as a function from images (B, bands, H, W) to logits (B, C, H, W)."""
    module: Callable[[Tensor], Tensor] = torch.export.load(path).module()
    return module


def save_onnx(path: Path, program: ExportedProgram, description: Mapping[str, Any]) -> None:
    """Writes an ONNX file with the description as its metadata, each value as JSON; needs `ome[export]`."""
    import onnx  # noqa: PLC0415 - part of an extra

    with _quiet():
        converted = torch.onnx.export(program, input_names=[INPUT], output_names=[OUTPUT], verbose=False)
    if converted is None:
        raise RuntimeError("torch.onnx.export returned nothing")
    model = converted.model_proto
    onnx.helper.set_model_props(model, {key: json.dumps(value) for key, value in description.items()})
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(path))


def load_onnx(path: Path) -> Callable[[Tensor], Tensor]:
    """Reads an ONNX file like `load_program`; onnxruntime runs it on the CPU; needs `ome[export]`."""
    import onnxruntime  # noqa: PLC0415 - part of an extra

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # no log lines: errors are raised
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run([OUTPUT], {INPUT: images.numpy()})[0])


def largest_difference(
    segmenter: Segmenter,
    copy: Callable[[Tensor], Tensor],
    bands: int,
    sizes: Sequence[tuple[int, int, int]] = CHECKED_SIZES,
) -> float:
    """The largest absolute difference of any logit of a segmenter and its copy on random images.

    Args:
        segmenter: In eval mode, on the CPU.
        copy: The copy, as `load_program` or `load_onnx` returns it.
        bands: Bands of the images.
        sizes: Batch, height and width of each set of images.

    Returns:
        The difference; infinity if the copy fails on images of these sizes.
    """
    generator = torch.Generator().manual_seed(0)
    largest = 0.0
    for batch, height, width in sizes:
        images = torch.randn(batch, bands, height, width, generator=generator)
        try:
            copied = copy(images)
        except Exception:  # noqa: BLE001 - onnxruntime raises a dozen kinds of errors
            return math.inf
        with torch.no_grad():
            largest = max(largest, float((segmenter(images) - copied).abs().max()))
    return largest


@contextmanager
def _constant_same_padding() -> Iterator[None]:
    """Makes the padding of timm's TensorFlow-like layers independent of the image's size.

    They compute the padding by `math.ceil` of the size, which cannot be exported. Since `MULTIPLE` divides
    the size of the image, a layer's stride divides the size of its input, so that the padding is always the
    same.
    """
    original = timm.layers.padding.get_same_padding

    def padding(x: int, kernel_size: int, stride: int, dilation: int) -> int:
        del x
        return max((kernel_size - 1) * dilation + 1 - stride, 0)

    timm.layers.padding.get_same_padding = padding
    try:
        yield
    finally:
        timm.layers.padding.get_same_padding = original


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences the exporters' log lines and warnings."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
