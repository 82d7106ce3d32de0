"""CAMs -> pseudo masks and their uncertainty weights."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig

from ome.config.objects import crf_of, crf_threads, labelling_of
from ome.config.selected import scene_reader
from ome.data.scenes import SceneIndex, SceneReader
from ome.data.tiles import Tile
from ome.distributed.collectives import all_reduce_sum, barrier, shard
from ome.geo.raster import read_png, write_grey_png, write_palette_png
from ome.inference.class_maps import StacksOf, cam_source, stacks_from, work_on_tiles
from ome.inference.tile_scores import TileScorer
from ome.pipeline.stage import Stage, Work
from ome.pseudo.uncertainty import pseudo_label
from ome.scoring.rows import Row, write_rows
from ome.stages.labels import read_tag_table


def run(work: Work) -> dict[str, Any]:
    """Runs the CRF and the response scaling on the CAMs of every training tile."""
    index = SceneIndex.read(work.inputs["prepare"])
    reader = scene_reader(work.config, index)
    table = read_tag_table(work.inputs["labels"], index).select("train", tagged=True)
    tiles, cams = table.tiles, work.inputs[work.settings.cams]
    stacks_of = stacks_from(work.config, cams, reader, table)
    write_pseudo_labels(work.config, work.folder, reader, tiles, stacks_of)
    barrier()
    written = (cams / "cams").is_dir()
    rows = [] if written else score_masks(work.folder, "cam_argmax", reader, tiles, "CAM")
    rows += score_masks(work.folder, "masks", reader, tiles, "pseudo mask")
    write_rows(work.folder, rows)
    return {"tiles": len(tiles), **weight_levels(work.folder, tiles)}


def mask_path(folder: Path, kind: str, tile: Tile) -> Path:
    """Where a tile's `masks`, `weights` or `cam_argmax` image lies."""
    return folder / kind / tile.scene / f"{tile.name}.png"


def read_pseudo_label(folder: Path, tile: Tile) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Reads a tile's pseudo mask and weight, both (H, W) uint8."""
    return read_png(mask_path(folder, "masks", tile)), read_png(mask_path(folder, "weights", tile))


def write_pseudo_labels(
    config: DictConfig, folder: Path, reader: SceneReader, tiles: Sequence[Tile], stacks_of: StacksOf
) -> None:
    """Writes `masks`, `weights` and `cam_argmax` of this process's part of the tiles; keeps what is there.

    The CRF of a tile depends on that tile alone, so the result is the same for any number of threads.

    Args:
        config: With the settings of the pseudo labels under `stage`, the CRF's under `crf`, and the hardware.
        folder: Where the three folders are made.
        reader: Reads the images.
        tiles: All tiles, of every process.
        stacks_of: Gives their class maps.
    """
    crf_for, labelling = crf_of(config), labelling_of(config)
    colours = reader.index.palette.flat()

    def label(tile: Tile, image: NDArray[np.uint8], stack: NDArray[np.float32]) -> None:
        made = pseudo_label(crf_for(image), stack, labelling)
        write_grey_png(mask_path(folder, "weights", tile), made.weight)
        write_palette_png(mask_path(folder, "cam_argmax", tile), made.cam_argmax, colours)
        # The mask comes last: where it is, the tile is done.
        write_palette_png(mask_path(folder, "masks", tile), made.mask, colours)

    work_on_tiles(
        "CRF and uncertainty, tiles",
        shard(tiles),
        lambda tile: mask_path(folder, "masks", tile),
        reader,
        stacks_of,
        label,
        threads=crf_threads(config),
    )


def score_masks(folder: Path, kind: str, reader: SceneReader, tiles: Sequence[Tile], name: str) -> list[Row]:
    """Scores the `masks` or `cam_argmax` images where there is a reference, each process its part."""
    scorer = TileScorer(reader)
    for tile in shard(tiles):
        scorer.add(tile, read_png(mask_path(folder, kind, tile)))
    return scorer.gather().rows(name, "train tiles")


def weight_levels(folder: Path, tiles: Sequence[Tile]) -> dict[str, Any]:
    """The mean weight, and the share of pixels without any; all processes count together."""
    if not tiles:
        return {}
    counts = np.zeros(256, dtype=np.int64)
    for tile in shard(tiles):
        counts += np.bincount(read_png(mask_path(folder, "weights", tile)).ravel(), minlength=256)
    counts = all_reduce_sum(counts)
    shares = counts / counts.sum()
    return {"mean_weight": float(shares @ np.arange(256)), "zero_weight": float(shares[0])}


def _needs(config: DictConfig) -> tuple[str, ...]:
    return "prepare", "labels", cam_source(config.stage.cams)


STAGE = Stage(
    "pseudo",
    run,
    needs=_needs,
    reads=(
        "crf",
        "dataset.channels",
        "dataset.display",
        "quirks.background_read_first",
        "trainer.accelerator",
    ),
)
