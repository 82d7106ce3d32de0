"""Bands and depths of all images of a dataset: differences are an error or are printed."""

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray
from rich.markup import escape

from ome.data.pixel_sizes import PixelSizes
from ome.data.raw import RawLayout
from ome.data.raw_file import RawFile
from ome.data.scaling import PERCENTILES, common_limits, misfit, sampled
from ome.data.scene_writer import SceneJob, check_channels
from ome.data.unmarked import say_unmarked, unmarked
from ome.errors import UserError
from ome.geo.raster_file import UnreadableError
from ome.progress import console, track


def checked_bands(jobs: Sequence[SceneJob], layout: RawLayout) -> tuple[int, ...]:
    """The image bands of all images; empty if images differ and `layout.channels` are given.

    Differences in depth, opacity and pixel size, and limits of 16-bit values that do not fit, are printed.
    Images that cannot be read are left out: they are reported, or skipped, when they are prepared.

    Raises:
        UserError: The images differ in their bands, or lack some of `layout.channels`.
    """
    bands: dict[tuple[int, ...], list[RawFile]] = {}
    orders: dict[tuple[str, ...], list[RawFile]] = {}
    opacity: Counter[int] = Counter()
    misnamed: Counter[int] = Counter()
    depths: dict[str, list[RawFile]] = {}
    unclear: dict[str, list[RawFile]] = {}
    sizes = PixelSizes()
    for job in track(jobs, f"prepare {layout.name}: bands and depths", total=len(jobs)):
        with suppress(UnreadableError), job.image.open(layout.nodata) as raster:
            raster.require()
            check_channels(job.image, raster.bands, layout)
            if job.split == "train":
                sizes.add(job.image, raster.grid)
            bands.setdefault(raster.shown_bands, []).append(job.image)
            orders.setdefault(raster.band_colours, []).append(job.image)
            opacity.update([raster.opacity] if raster.opacity in layout.channels else [])
            misnamed.update([raster.mislabelled_opacity] if raster.mislabelled_opacity else [])
            depths.setdefault(raster.depth, []).append(job.image)
            for line in unmarked(raster):
                unclear.setdefault(line, []).append(job.image)
    if not bands:
        return ()
    for band, count in opacity.items():
        console.print(
            f"[yellow]band {band} of {count} images is opacity[/], but dataset.channels includes it: it is "
            "read as an image band and does not mark nodata"
        )
    for band, count in misnamed.items():
        console.print(
            f"[yellow]band {band} of {count} images is labelled opacity[/], but holds an image: it is kept "
            "as an image band"
        )
    say_unmarked(unclear)
    sizes.say()
    _say_orders({colours: files for colours, files in orders.items() if colours and all(colours)})
    if len(bands) > 1 and not layout.channels:
        kinds = " and ".join(
            f"{len(files)} with the bands {list(shown)} (e.g. {files[0]})" for shown, files in bands.items()
        )
        remedy = "convert them, or choose bands that all have, e.g. 'dataset.channels=[1]'"
        raise UserError(f"the images differ in their bands, {kinds}: {remedy}")
    _say_depths(depths, layout)
    return next(iter(bands)) if len(bands) == 1 else ()


def _say_depths(images: Mapping[str, Sequence[RawFile]], layout: RawLayout) -> None:
    """Prints how images of 16 bits, by their depth, become 8 bits where that may be wrong."""
    deep, limits = images.get("uint16", ()), layout.limits
    if len(images) > 1:
        console.print(
            f"[yellow]{len(deep)} images have 16 bits and are scaled to 8, {len(images['uint8'])} have 8 "
            "bits and are not[/]: convert them to one depth if they look different"
        )
    elif limits and not deep:
        console.print(
            f"[yellow]all images have 8 bits[/]: dataset.range={list(limits)} does not apply to them"
        )
    misfits: list[str] = []
    samples: list[NDArray[np.uint16]] = []
    for image in deep:
        with suppress(UserError), image.open(layout.nodata, layout.named_bands) as raster:
            channels = [band for band in layout.channels or raster.shown_bands if band <= raster.bands]
            if limits is None:
                samples.append(sampled(raster, channels))
            elif values := misfit(raster, channels, limits):
                misfits.append(f"{escape(str(image))} has {values}")
    if misfits:
        console.print(
            f"[yellow]dataset.range={list(limits or ())} does not fit {len(misfits)} of "
            f"{sum(map(len, images.values()))} images[/]: the first, {misfits[0]}"
        )
    if common := common_limits(samples):
        console.print(
            f"[yellow]{len(samples)} images of 16 bits are stretched one by one[/], so that dark and bright "
            f"ones look alike: type 'dataset.range={list(common)}', percentiles {PERCENTILES[0]} and "
            f"{PERCENTILES[1]} of all, if the same value means the same in each"
        )


def _say_orders(orders: Mapping[tuple[str, ...], Sequence[RawFile]]) -> None:
    """Prints that images say that the same bands show different colours."""
    if len({len(colours) for colours in orders}) == len(orders):
        return
    kinds = ", ".join(
        f"{len(files)} {', '.join(colours)} (e.g. {escape(str(files[0]))})"
        for colours, files in orders.items()
    )
    console.print(
        f"[yellow]the images label their bands differently[/], {kinds}: if that is right, bring them to one "
        "order, e.g. gdal_translate -b 3 -b 2 -b 1 IN OUT"
    )
