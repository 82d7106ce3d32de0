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
    if max(channels) <= array.shape[0] < min(array.shape[1:]) and array.shape[0] < 32:
        raise UserError(
            f"the array has the shape {array.shape}, but bands must be last: give array.transpose(1, 2, 0)"
        )
    if array.dtype.name not in IMAGE_DEPTHS:
        raise _wrong_depth(array.dtype.name, "(array * 255).astype('uint8')")
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
        raise _wrong_depth(str(scene.dtype).removeprefix("torch."), "(tensor * 255).byte()")
    try:
        array = np.asanyarray(scene.detach().cpu() if isinstance(scene, Tensor) else scene)
    # RuntimeError: tensors without data, as on the device `meta`.
    except (ValueError, TypeError, RuntimeError) as error:
        line = str(error).partition("\n")[0]
        raise UserError(f"the scene is not an array ({line}): give (height, width, bands) uint8") from error
    # A matrix has always two dimensions.
    return array if isinstance(array, np.ma.MaskedArray) else np.asarray(array)


def _wrong_depth(depth: str, remedy: str) -> UserError:
    return UserError(
        f"the array has {depth} values: give uint8 or uint16, e.g. {remedy} for values from 0 to 1"
    )
