"""Checks whether settings fit each other, the machine and the disk, before the first stage starts."""

from collections.abc import Iterator, Sequence
from glob import has_magic
from pathlib import Path
from typing import Final

from omegaconf import DictConfig, OmegaConf

from ome.config.encoder_weights import weights_to_load
from ome.config.folders import folder_faults
from ome.config.raw_data import is_folder_of_images, raw_fault, split_fault
from ome.config.trial_builds import TRIAL_BUILDS
from ome.data.cams import cam_files
from ome.data.folder import NO_TABLE
from ome.data.sheets import SPREADSHEETS
from ome.distributed.rank import started_place
from ome.errors import UserError
from ome.extras import missing_modules
from ome.geo.scene_list import names_many
from ome.geo.vsi import scene_at
from ome.pipeline.artifacts import as_list, matching_folders
from ome.pipeline.layout import CAM_TITLES
from ome.pipeline.manifest import NAME as MANIFEST

POOLED: Final = ("deeplabv3plus", "upernet")
"""Segmenters with BatchNorm over feature maps that are pooled to a single pixel."""

CRF_STAGES: Final = frozenset({"affinity", "pseudo", "ablation", "refine"})
TRAININGS: Final = frozenset({"cam", "affinity", "seg", "refine"})
BATCHES: Final = {
    "stage.cam.batch": {"cam"},
    "stage.affinity.batch": {"affinity"},
    "segmenter.recipe.batch": {"seg", "refine"},
}
"""Sizes of batches, and the stages that train with them."""
CHECK: Final = "check the path"
RESNET38D: Final = (
    "scripts/convert_mxnet.py writes it from the ImageNet weights of SEAM's authors (docs/datasets.md), "
    "backbone.weights=null starts from random ones"
)
"""What to do without a file that is to be read: any, and that of presets and experiments after the paper."""
NETWORK_STAGES: Final = CRF_STAGES | {"cam", "seg", "predict", "export", "suggest"}


def cross_faults(config: DictConfig, stages: Sequence[str], wrong: Sequence[str] = ()) -> Iterator[str]:
    """Yields an error line for each fault of the settings of some stages, the machine and the disk.

    `wrong` are the addresses of settings of a wrong type, with which nothing can be built.
    """
    for section in (_training, _hardware, _batches, _extras, _files, _inherited):
        yield from section(config, stages)
    for groups, build in TRIAL_BUILDS.items():
        if not any(key.startswith(groups) for key in wrong):
            yield from build(config, stages)


def _training(config: DictConfig, stages: Sequence[str]) -> Iterator[str]:
    recipe = config.segmenter.recipe
    if {"seg", "refine"} & {*stages} and recipe.batch == 1 and config.segmenter.name in POOLED:
        yield (
            f"segmenter.recipe.batch=1: {config.segmenter.name} normalises maps of a single pixel over the "
            "batch, which needs two tiles; type segmenter.recipe.batch=2, or segmenter=fpn"
        )
    if "refine" in stages and "weak" not in config.stage.seg.targets:
        yield (
            f"stage.seg.targets={config.stage.seg.targets}: stage=refine starts from the segmenter weak: "
            "type 'stage.seg.targets=[weak,full]', or stage.refine.rounds=0"
        )
    if "prepare" in stages and (fault := split_fault(config)) is not None:
        yield fault
    yield from folder_faults(config)


def _hardware(config: DictConfig, stages: Sequence[str]) -> Iterator[str]:
    accelerator, devices = config.trainer.accelerator, config.trainer.devices
    if config.trainer.strategy == "auto":
        for key, count in (("devices", devices), ("num_nodes", config.trainer.num_nodes)):
            if count > 1:
                yield f"trainer.{key}={count}: more than one needs trainer=ddp or trainer=ddp_cpu"
    if config.trainer.compile and config.trainer.strategy == "ddp" and TRAININGS & {*stages}:
        yield (
            "trainer.compile=true is for a single process, not for trainer.strategy=ddp: "
            "type trainer.compile=false, or trainer=auto"
        )
    if accelerator not in {"gpu", "cuda"} or not NETWORK_STAGES & {*stages}:
        return
    import torch  # noqa: PLC0415 - slow to import

    count = torch.cuda.device_count()
    if not torch.cuda.is_available():
        yield f"trainer.accelerator={accelerator}, but torch finds no GPU: type trainer=cpu"
    elif devices > count:
        yield f"trainer.devices={devices}, but there are {count} GPUs: type trainer.devices={count}"


def _batches(config: DictConfig, stages: Sequence[str]) -> Iterator[str]:
    trainer, place = config.trainer, started_place()
    if trainer.strategy == "auto" or trainer.devices < 1:  # one process, or one for each GPU
        return
    count = place.world_size if place else trainer.devices * trainer.num_nodes
    for key, trainings in BATCHES.items():
        batch = OmegaConf.select(config, key)
        if trainings & {*stages} and batch % count:
            yield f"{key}={batch} cannot be split evenly among {count} processes: give a multiple of {count}"


def _extras(config: DictConfig, stages: Sequence[str]) -> Iterator[str]:
    table = str(config.dataset.get("tags"))
    crf, predict = config.crf.backend, config.stage.predict
    sheet = table.lower().endswith(SPREADSHEETS) and bool({"prepare", "labels"} & {*stages})
    required = {
        "reference": ("crf.backend=pydensecrf", crf == "pydensecrf" and bool(CRF_STAGES & {*stages})),
        "tensorboard": ("logger=tensorboard", config.logger.kind == "tensorboard"),
        "vector": ("stage.predict.polygons=true", "predict" in stages and predict.polygons),
        "export": ("stage=export", "export" in stages),
        "spreadsheet": (f"dataset.tags={table}", sheet),
    }
    for extra, (setting, needed) in required.items():
        if needed and (missing := missing_modules(extra)):
            yield f'{setting} needs {" and ".join(missing)}: pip install "ome[{extra}]"'


def _files(config: DictConfig, stages: Sequence[str]) -> Iterator[str]:
    """Files and folders that stages will read."""
    # Prepared scenes do not need the raw folder.
    if "prepare" in stages and not (Path(config.scenes) / MANIFEST).exists():
        table = NO_TABLE if is_folder_of_images(config) and not config.dataset.get("tags") else None
        yield from filter(None, [raw_fault(config), table])
    if path := config.dataset.get("tags") if {"prepare", "labels"} & {*stages} else None:
        yield from _missing("dataset.tags", path)
    scene = config.stage.predict.scene if "predict" in stages else None
    if scene and not names_many(scene) and isinstance(path := scene_at(scene), Path):
        yield from _missing("stage.predict.scene", str(path))
    checkpoint = config.stage.cam.checkpoint if "cam" in stages else None
    if checkpoint:
        yield from _missing("stage.cam.checkpoint", checkpoint)
    cams = config.stage.pseudo.cams if "pseudo" in stages else "cam"
    if cams not in CAM_TITLES:
        try:
            cam_files(Path(cams))
        except UserError as error:
            yield str(error)
    for key, encoder, weights in weights_to_load(config, stages):
        from ome.networks.weights import looks_like_file  # noqa: PLC0415 - slow to import

        if looks_like_file(weights):
            yield from _missing(key, weights, RESNET38D if encoder == "resnet38d" else CHECK)


def _inherited(config: DictConfig, stages: Sequence[str]) -> Iterator[str]:
    del stages
    runs = as_list(config.inherit)
    if not any(matching_folders(run) for run in runs) and any(not has_magic(run) for run in runs):
        yield f"inherit={config.inherit} does not exist: give folders of runs, or a pattern such as 'runs/*'"


def _missing(key: str, path: str, remedy: str = CHECK) -> Iterator[str]:
    if not Path(path).exists():
        yield f"{key}={path} does not exist: {remedy}"
