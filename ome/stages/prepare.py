"""Raw archives -> tiled GeoTIFF scenes and their index."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.markup import escape

from ome.data.prepare import prepare_scenes
from ome.data.town import write_town
from ome.errors import UserError
from ome.progress import console
from ome.stages.manifest import Manifest, identity
from ome.stages.settings import raw_folder, raw_layout
from ome.stages.stage import Stage, Work
from ome.training.distributed import is_leader


def run(work: Work) -> dict[str, Any]:
    """Reads every scene of the splits once and writes it as GeoTIFF; other processes only wait."""
    if not is_leader():
        return {}
    raw = Path(raw_folder(work.config))
    layout = raw_layout(work.config)
    town = work.config.dataset.get("town")
    if town is not None:
        write_town(layout, raw, size=town.size, seed=town.seed)
    index = prepare_scenes(layout, raw, work.folder)
    unknown = index.unknown
    if unknown.pixels:
        console.print(
            f"[yellow]{unknown.pixels} reference pixels have colours outside the palette[/]:",
            escape(str(unknown)),
        )
    return {
        "scenes": {split: len(index.split(split)) for split in ("train", "val", "test")},
        "class_pixels": index.class_pixels,
        "unknown_pixels": unknown.pixels,
    }


def sources(config: DictConfig) -> list[Any]:
    """Every file in the raw folder; what was recorded where the folder is not given, or gone by now."""
    if config.dataset.get("town") is not None:
        return []
    given = not OmegaConf.is_missing(config.dataset, "raw")
    manifest = Manifest.read(Path(config.scenes))
    if manifest is not None and not (given and Path(config.dataset.raw).is_dir()):
        return list(manifest.config["sources"])
    raw = Path(raw_folder(config))
    if not raw.is_dir():
        raise UserError(
            f"there is no folder {raw}: type dataset.raw=/path/to/the/archives/of/{config.dataset.name}"
        )
    return [identity(path) for path in sorted(raw.rglob("*")) if path.is_file()]


FACTS = ("name", "bands", "reference", "classes", "ignored", "images", "masks", "split", "town")

STAGE = Stage(
    "prepare",
    run,
    reads=(*(f"dataset.{key}" for key in FACTS), "quirks.unknown_colours_as_first_class"),
    sources=sources,
)
