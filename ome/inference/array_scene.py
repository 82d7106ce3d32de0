"""Arrays and tensors as scenes, with checks for common mistakes such as bands first."""

from typing import Any, Final

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.io import MemoryFile
from torch import Tensor

from ome.errors import UserError
from ome.geo.gdal import plain_pixels
from ome.geo.reader import IMAGE_DEPTHS

NUMBERS: Final = ("L", "RGB", "I", "I;16", "I;16B", "F")
"""Modes of Pillow's images whose numbers are what they show, as bands without opacity."""


def geotiff_of(scene: Any, channels: tuple[int, ...]) -> bytes:  # noqa: ANN401 - anything that numpy converts to an array
    """Converts an array (height, width, bands) to a GeoTIFF in memory.

    Args:
        scene: A numpy array, a torch tensor or an image of Pillow, uint8 or uint16. Pixels of a masked array
            that are masked in all bands of the network become pixels without data.
        channels: The bands that the network takes, counted from 1.

    Raises:
        UserError: The shape or the type of the array is wrong.
    """
    array = _pixels(scene)
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3:
        raise UserError(f"the array has the shape {array.shape}: give (height, width, bands)")
    if not array.size:
        raise UserError(f"the array has no pixels, its shape is {array.shape}: give (height, width, bands)")
    if _has_bands_first(array.shape, max(channels)):
        raise UserError(
            f"the array has the shape {array.shape}, but bands must be last: "
            f"give {'tensor.permute' if isinstance(scene, Tensor) else 'array.transpose'}(1, 2, 0)"
        )
    if array.dtype.name not in IMAGE_DEPTHS:
        raise _wrong_depth(array.dtype.name, _remedy(array, is_tensor=isinstance(scene, Tensor)))
    height, width, count = array.shape
    size = {"height": height, "width": width, "count": count, "dtype": array.dtype.name}
    try:
        with plain_pixels(), rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), MemoryFile() as memory:
            with memory.open(driver="GTiff", photometric="MINISBLACK", **size) as written:
                written.write(np.ma.getdata(array).transpose(2, 0, 1))
                # If there are too few bands, the reader of the file reports it.
                if np.ma.is_masked(array) and max(channels) <= count:
                    masked = np.ma.getmaskarray(array)[..., [channel - 1 for channel in channels]]
                    written.write_mask(~masked.all(axis=-1))
            return bytes(memory.getbuffer())
    except (RasterioError, MemoryError) as error:
        raise UserError(
            f"the array of shape {array.shape} needs more memory than there is: write it to a GeoTIFF, which "
            "ome.map_scene reads by windows"
        ) from error


def _pixels(scene: Any) -> NDArray[Any]:  # noqa: ANN401
    mode = getattr(scene, "mode", None) if hasattr(scene, "getbands") else None
    if mode not in {None, *NUMBERS}:
        raise UserError(f"the image has the mode {mode}: give image.convert('RGB'), or its file")
    try:
        if isinstance(scene, Tensor):
            scene = scene.detach()
            if scene.is_floating_point():  # numpy has no bfloat16
                values = np.empty(0) if scene.is_meta else scene.cpu().double().numpy()
                raise _wrong_depth(str(scene.dtype).removeprefix("torch."), _remedy(values, is_tensor=True))
        array = np.asanyarray(scene.cpu() if isinstance(scene, Tensor) else scene)
    # RuntimeError: tensors without data, as on the device `meta`; TypeError: sparse ones.
    except (ValueError, TypeError, RuntimeError) as error:
        line = str(error).partition("\n")[0]
        raise UserError(f"the scene is not an array ({line}): give (height, width, bands) uint8") from error
    # A matrix has always two dimensions.
    return array if isinstance(array, np.ma.MaskedArray) else np.asarray(array)


def _has_bands_first(shape: tuple[int, ...], needed: int) -> bool:
    """Whether an array of three dimensions can hardly have its bands last.

    Images of fewer than 32 rows and of 32 bands or more exist, but not both in one.

    Args:
        shape: Its shape.
        needed: The number of bands that the network needs.
    """
    first, *others = shape
    square = others[0] == others[1] >= 32
    return first < min(others) and (needed <= first < 32 or min(others) >= 32 > first or square)


def _remedy(array: NDArray[Any], *, is_tensor: bool) -> str:
    """What to type for an array of another depth, so that no value overflows and nan is no data.

    Args:
        array: The array, which may be masked.
        is_tensor: Whether it was a tensor.

    Returns:
        An expression of `array` or `tensor`; empty if its values fit no depth.
    """
    if array.dtype.kind not in "biuf":
        return ""
    values = np.ma.compressed(array)
    values = values[np.isfinite(values)]
    if values.size and not 0 <= values.min() <= values.max() <= np.iinfo(np.uint16).max:
        return ""
    floats, largest = array.dtype.kind == "f", values.max(initial=0)
    whole = "np.ma.masked_invalid(array)" if values.size < array.size else "np.asarray(array)"
    if floats and largest <= 1:
        scaled = "(tensor * 255).byte()" if is_tensor else f"({whole} * 255).astype('uint8')"
        return f"{scaled} for values from 0 to 1"
    depth = "uint8" if largest <= np.iinfo(np.uint8).max else "uint16"
    rounded = ".round()" if floats else ""
    return f"tensor{rounded}.to(torch.{depth})" if is_tensor else f"{whole}{rounded}.astype('{depth}')"


def _wrong_depth(depth: str, remedy: str) -> UserError:
    return UserError(
        f"the array has {depth} values: give uint8 or uint16" + (f", e.g. {remedy}" if remedy else "")
    )
