"""CAMs -> pseudo masks and their uncertainty weights."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from ome.config.objects import hardware, labeller_of
from ome.config.sections import scene_reader
from ome.data.cams import cam_files
from ome.data.scene_index import SceneIndex
from ome.data.scenes import SceneReader
from ome.data.tags import TagTable
from ome.distributed.collectives import barrier
from ome.distributed.processes import process_cores
from ome.errors import UserError
from ome.inference.class_maps import ClassMapsOf, class_maps_from
from ome.inference.pseudo_labels import mask_statistics, score_masks, write_pseudo_labels
from ome.inference.user_cams import UserCams
from ome.pipeline.layout import CAM_TITLES, CAMS, PSEUDO_MASK, read_tag_table
from ome.pipeline.manifest import identity
from ome.pipeline.stage import Stage, Work
from ome.scoring.rows import write_rows


def run(work: Work) -> dict[str, Any]:
    """Writes and scores the pseudo masks and weights of every training tile."""
    index = SceneIndex.read(work.inputs["prepare"])
    reader = scene_reader(work.config, index)
    table = read_tag_table(work.inputs["labels"], index).select("train", tagged=True)
    tiles, maps_of = table.tiles, _class_maps(work, reader, table)
    write_pseudo_labels(
        work.folder,
        reader,
        tiles,
        maps_of,
        labeller_of(work.config),
        threads=work.settings.threads or process_cores(),
    )
    barrier()
    # A stage that wrote CAMs has scored them.
    cams = work.settings.cams
    are_scored = cams in CAM_TITLES and (work.inputs[cams] / CAMS).is_dir()
    rows = [] if are_scored else score_masks(work.folder, "cam_argmax", reader, tiles, CAM_TITLES["cam"])
    rows += score_masks(work.folder, "masks", reader, tiles, PSEUDO_MASK)
    write_rows(work.folder, rows)
    statistics = mask_statistics(work.folder, tiles, table.names)
    if tiles and not any(statistics["mask_pixels"].values()):
        raise UserError(
            f"no pixel of {len(tiles)} pseudo masks has a class, so nothing can be learnt from them: train "
            "the classifier longer (stage.cam.epochs), or give maps above 0 (stage.pseudo.cams)"
        )
    return {"tiles": len(tiles), **statistics}


def _class_maps(work: Work, reader: SceneReader, table: TagTable) -> ClassMapsOf:
    """The class maps of a stage, or those in the user's folder."""
    cams = work.settings.cams
    if cams in CAM_TITLES:
        return class_maps_from(hardware(work.config).device(), work.inputs[cams], reader, table)
    maps_of = UserCams(Path(cams), reader, table)
    maps_of.check(table.tiles)
    return maps_of


def _requires(config: DictConfig) -> tuple[str, ...]:
    cams = config.stage.cams
    return "prepare", "labels", *([cams] if cams in CAM_TITLES else [])


def _sources(config: DictConfig) -> list[Any]:
    """Identities of the user's class maps."""
    cams = config.stage.cams
    return [] if cams in CAM_TITLES else [identity(path) for path in cam_files(Path(cams)).values()]


STAGE = Stage(
    "pseudo",
    run,
    requires=_requires,
    config_keys=(
        "crf",
        "dataset.channels",
        "dataset.display",
        "quirks.background_read_first",
        "trainer.accelerator",
    ),
    free_keys=("trainer.precision",),
    external_files=_sources,
    version=2,
)
