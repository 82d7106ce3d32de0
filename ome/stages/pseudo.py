"""CAMs -> pseudo masks and their uncertainty weights."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from ome.config.objects import hardware, labeller_of
from ome.config.selected import scene_reader
from ome.data.cams import cam_files
from ome.data.scene_index import SceneIndex
from ome.data.scenes import SceneReader
from ome.data.tags import TagTable
from ome.distributed.collectives import barrier
from ome.distributed.processes import own_cores
from ome.inference.class_maps import StacksOf, stacks_from
from ome.inference.own_cams import OwnCams
from ome.inference.pseudo_labels import score_masks, weight_levels, write_pseudo_labels
from ome.pipeline.layout import CAM_TITLES, PSEUDO_MASK, read_tag_table
from ome.pipeline.manifest import identity
from ome.pipeline.stage import Stage, Work
from ome.scoring.rows import write_rows


def run(work: Work) -> dict[str, Any]:
    """Runs the CRF and the response scaling on the CAMs of every training tile."""
    index = SceneIndex.read(work.inputs["prepare"])
    reader = scene_reader(work.config, index)
    table = read_tag_table(work.inputs["labels"], index).select("train", tagged=True)
    tiles, stacks_of = table.tiles, _stacks(work, reader, table)
    write_pseudo_labels(
        work.folder,
        reader,
        tiles,
        stacks_of,
        labeller_of(work.config),
        threads=work.settings.threads or own_cores(),
    )
    barrier()
    scored = work.settings.cams in CAM_TITLES and (work.inputs[work.settings.cams] / "cams").is_dir()
    rows = [] if scored else score_masks(work.folder, "cam_argmax", reader, tiles, CAM_TITLES["cam"])
    rows += score_masks(work.folder, "masks", reader, tiles, PSEUDO_MASK)
    write_rows(work.folder, rows)
    return {"tiles": len(tiles), **weight_levels(work.folder, tiles)}


def _stacks(work: Work, reader: SceneReader, table: TagTable) -> StacksOf:
    """The class maps of a stage, or those in a folder of the user's."""
    cams = work.settings.cams
    if cams in CAM_TITLES:
        return stacks_from(hardware(work.config).device(), work.inputs[cams], reader, table)
    own = OwnCams(Path(cams), reader, table)
    own.check(table.tiles)
    return own


def _needs(config: DictConfig) -> tuple[str, ...]:
    cams = config.stage.cams
    return "prepare", "labels", *([cams] if cams in CAM_TITLES else [])


def _own_files(config: DictConfig) -> list[Any]:
    cams = config.stage.cams
    return [] if cams in CAM_TITLES else [identity(path) for path in cam_files(Path(cams)).values()]


STAGE = Stage(
    "pseudo",
    run,
    requires=_needs,
    config_keys=(
        "crf",
        "dataset.channels",
        "dataset.display",
        "quirks.background_read_first",
        "trainer.accelerator",
    ),
    free_keys=("trainer.precision",),
    external_files=_own_files,
)
