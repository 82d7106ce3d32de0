"""Exports segmenters to formats that run without this package: ONNX and torch.export."""

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
"""Batch, height and width of the random images on which formats are compared; the example has others."""


def trace(segmenter: Segmenter, bands: int, side: int | None = None) -> ExportedProgram:
    """Records what a segmenter computes, for any number of images.

    The padding to a multiple stays behind: it branches on the size, which a recorded program cannot.

    Args:
        segmenter: In eval mode, on the CPU.
        bands: Of its images.
        side: Of square images, if only these are to be taken; a multiple of `MULTIPLE`.

    Returns:
        Images (B, bands, H, W) to logits (B, C, H, W); H and W any multiples of `MULTIPLE` but
        `MULTIPLE` itself, unless there is a side.
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
    """Writes a `.pt2`, with the description as `description.json` among its extra files."""
    stream = BytesIO()  # given a path, torch writes that file's name into it
    torch.export.save(program, stream, extra_files={"description.json": json.dumps(description)})
    path.write_bytes(stream.getbuffer())


def load_program(path: Path) -> Callable[[Tensor], Tensor]:
    """Reads a `.pt2` as a function of images."""
    module: Callable[[Tensor], Tensor] = torch.export.load(path).module()
    return module


def save_onnx(path: Path, program: ExportedProgram, description: Mapping[str, Any]) -> None:
    """Writes an ONNX file with the description as its metadata, each value as JSON; needs `ome[export]`."""
    import onnx  # noqa: PLC0415 - part of an extra

    with _quiet():
        converted = torch.onnx.export(program, input_names=[INPUT], output_names=[OUTPUT], verbose=False)
    if converted is None:
        raise RuntimeError("torch.onnx.export gave nothing")
    model = converted.model_proto
    onnx.helper.set_model_props(model, {key: json.dumps(value) for key, value in description.items()})
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(path))


def load_onnx(path: Path) -> Callable[[Tensor], Tensor]:
    """Reads an ONNX file as a function of images, run by onnxruntime on the CPU; needs `ome[export]`."""
    import onnxruntime  # noqa: PLC0415 - part of an extra

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what goes wrong is raised
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run([OUTPUT], {INPUT: images.numpy()})[0])


def largest_difference(
    segmenter: Segmenter,
    other: Callable[[Tensor], Tensor],
    bands: int,
    sizes: Sequence[tuple[int, int, int]] = CHECKED_SIZES,
) -> float:
    """The largest difference of any logit between a segmenter and its copy on random images.

    Args:
        segmenter: In eval mode, on the CPU.
        other: The copy.
        bands: Of the images.
        sizes: Batch, height and width of each set of images.

    Returns:
        The difference; infinity where the copy cannot take images of these sizes.
    """
    generator = torch.Generator().manual_seed(0)
    largest = 0.0
    for batch, height, width in sizes:
        images = torch.randn(batch, bands, height, width, generator=generator)
        try:
            copied = other(images)
        except Exception:  # noqa: BLE001 - onnxruntime has a dozen kinds of its own for this
            return math.inf
        with torch.no_grad():
            largest = max(largest, float((segmenter(images) - copied).abs().max()))
    return largest


@contextmanager
def _constant_same_padding() -> Iterator[None]:
    """Lets timm's layers with TensorFlow's padding pad by numbers that no longer depend on the image's size.

    Their `math.ceil` of a size can be neither saved nor converted. The stride of a layer divides each size
    that it is given, because `MULTIPLE` divides the image's: so the padding is the same for every image.
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
    """Silences what the exporters say about their own insides."""
    loud = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(loud)
