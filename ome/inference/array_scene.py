"""Arrays and tensors as scenes, with checks for common mistakes such as bands first."""

from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.io import MemoryFile
from torch import Tensor

from ome.errors import UserError
from ome.geo.gdal import plain_pixels
from ome.geo.reader import IMAGE_DEPTHS


def geotiff_of(scene: Any, channels: tuple[int, ...]) -> bytes:  # noqa: ANN401 - anything that numpy converts to an array
    """Converts an array (height, width, bands) to a GeoTIFF in memory.

    Args:
        scene: A numpy array or a torch tensor, uint8 or uint16. Pixels of a masked array that are masked in
            all bands of the network become pixels without data.
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
    with plain_pixels(), rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), MemoryFile() as memory:
        with memory.open(driver="GTiff", photometric="MINISBLACK", **size) as written:
            written.write(np.ma.getdata(array).transpose(2, 0, 1))
            # If there are too few bands, the reader of the file reports it.
            if np.ma.is_masked(array) and max(channels) <= count:
                masked = np.ma.getmaskarray(array)[..., [channel - 1 for channel in channels]]
                written.write_mask(~masked.all(axis=-1))
        return bytes(memory.getbuffer())


def _pixels(scene: Any) -> NDArray[Any]:  # noqa: ANN401
    if isinstance(scene, Tensor) and scene.is_floating_point():
        remedy = "(tensor * 255).byte() for values from 0 to 1"
        raise _wrong_depth(str(scene.dtype).removeprefix("torch."), remedy)
    try:
        array = np.asanyarray(scene.detach().cpu() if isinstance(scene, Tensor) else scene)
    # RuntimeError: tensors without data, as on the device `meta`.
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
    """What to type for an array of another depth, so that no value overflows and nan is no data."""
    if array.dtype.kind in "iu" and array.min() >= 0 and array.max() <= np.iinfo(np.uint16).max:
        depth = "uint8" if array.max() <= np.iinfo(np.uint8).max else "uint16"
        return f"tensor.to(torch.{depth})" if is_tensor else f"np.asarray(array).astype('{depth}')"
    if array.dtype.kind == "f" and np.isnan(array).any():
        return "(np.ma.masked_invalid(array) * 255).astype('uint8') for values from 0 to 1"
    return "(array * 255).astype('uint8') for values from 0 to 1"


def _wrong_depth(depth: str, remedy: str) -> UserError:
    return UserError(f"the array has {depth} values: give uint8 or uint16, e.g. {remedy}")
