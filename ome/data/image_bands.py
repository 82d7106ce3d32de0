"""Bands and depths of all images of a dataset: differences are an error or are printed."""

from collections import Counter
from collections.abc import Mapping, Sequence

from rich.markup import escape

from ome.data.raw import RawLayout
from ome.data.raw_file import RawFile
from ome.data.scaling import misfit
from ome.data.scene_writer import SceneJob
from ome.data.unmarked import say_unmarked, unmarked
from ome.errors import UserError
from ome.progress import console


def checked_bands(jobs: Sequence[SceneJob], layout: RawLayout) -> tuple[int, ...]:
    """The image bands of all images; empty if images differ and `layout.channels` are given.

    Differences in depth and opacity, and limits of 16-bit values that do not fit, are printed.

    Raises:
        UserError: The images differ in their bands.
    """
    bands: dict[tuple[int, ...], list[RawFile]] = {}
    orders: dict[tuple[str, ...], list[RawFile]] = {}
    opacity: Counter[int] = Counter()
    misnamed: Counter[int] = Counter()
    depths: Counter[str] = Counter()
    misfits: list[str] = []
    unclear: dict[str, list[RawFile]] = {}
    for job in jobs:
        with job.image.open(layout.nodata) as raster:
            bands.setdefault(raster.shown_bands, []).append(job.image)
            orders.setdefault(raster.band_colours, []).append(job.image)
            opacity.update([raster.opacity] if raster.opacity in layout.channels else [])
            misnamed.update([raster.mislabelled_opacity] if raster.mislabelled_opacity else [])
            depths[raster.depth] += 1
            for line in unmarked(raster):
                unclear.setdefault(line, []).append(job.image)
        if layout.limits is not None and raster.depth == "uint16":
            with job.image.open(layout.nodata, layout.named_bands) as raster:
                values = misfit(raster, layout.channels or raster.shown_bands, layout.limits)
                misfits += [f"{escape(str(job.image))} has {values}"] if values else []
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
    _say_orders({colours: files for colours, files in orders.items() if colours and all(colours)})
    if len(bands) > 1 and not layout.channels:
        kinds = " and ".join(
            f"{len(files)} with the bands {list(shown)} (e.g. {files[0]})" for shown, files in bands.items()
        )
        remedy = "convert them, or choose bands that all have, e.g. 'dataset.channels=[1]'"
        raise UserError(f"the images differ in their bands, {kinds}: {remedy}")
    limits = list(layout.limits or ())
    if len(depths) > 1:
        console.print(
            f"[yellow]{depths['uint16']} images have 16 bits and are scaled to 8, {depths['uint8']} have 8 "
            "bits and are not[/]: convert them to one depth if they look different"
        )
    elif limits and not depths["uint16"]:
        console.print(f"[yellow]all images have 8 bits[/]: dataset.range={limits} does not apply to them")
    if misfits:
        console.print(
            f"[yellow]dataset.range={limits} does not fit {len(misfits)} of {len(jobs)} images[/]: the "
            f"first, {misfits[0]}"
        )
    return next(iter(bands)) if len(bands) == 1 else ()


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
