"""Raw archives -> tiled GeoTIFF scenes and their index."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.markup import escape

from ome.config.raw_data import is_folder_of_images, nodata_of, raw_fault, raw_folder, raw_layout
from ome.data.folder import image_names
from ome.data.mask_values import check_mask_values
from ome.data.names import near_names
from ome.data.prepare import masks_without_image, names_opacity, prepare_scenes
from ome.data.raw import RawLayout
from ome.data.scene_index import SceneIndex
from ome.distributed.collectives import is_rank_zero
from ome.errors import UserError
from ome.pipeline.artifacts import Artefact, plain
from ome.pipeline.inputs import check_raw
from ome.pipeline.manifest import identity
from ome.pipeline.place import read_if_whole
from ome.pipeline.stage import Stage, Work
from ome.progress import console
from ome.synthetic.town import write_town


def run(work: Work) -> dict[str, Any]:
    """Reads every scene of the splits once and writes it as GeoTIFF; other processes only wait."""
    if not is_rank_zero():
        return {}
    raw = Path(raw_folder(work.config))
    layout = raw_layout(work.config)
    town = work.config.dataset.get("town")
    if town is not None:
        write_town(layout, raw, size=town.size, seed=town.seed)
    index = prepare_scenes(layout, raw, work.folder, skip_broken=work.settings.broken == "skip")
    if index.broken:
        console.print(
            f"[yellow]{len(index.broken)} scenes cannot be read and are left out[/]:",
            escape(", ".join(index.broken[:5]) + (", ..." if len(index.broken) > 5 else "")),
        )
    typed = not is_folder_of_images(work.config) or work.config.dataset.get("classes")
    near = [] if typed else near_names(layout.palette.names)
    for line in [*near, *_about_masks(work.config, layout, index)]:
        console.print(f"[yellow]{escape(line)}[/]", highlight=False)
    unknown = index.unknown
    if unknown.pixels:
        console.print(
            f"[yellow]{unknown.pixels} reference pixels have colours outside the palette[/]:",
            escape(str(unknown)),
        )
    if is_folder_of_images(work.config):
        bands = list(layout.channels or index.channels)
        console.print(f"{len(index.scenes)} images, bands {bands}", highlight=False)
    return {
        "raw": str(raw.resolve()),
        "scenes": {split: len(index.split(split)) for split in ("train", "val", "test")},
        "class_pixels": index.class_pixels,
        "unknown_pixels": unknown.pixels,
        "broken_scenes": len(index.broken),
    }


def _about_masks(config: DictConfig, layout: RawLayout, index: SceneIndex) -> Iterator[str]:
    """Warnings about the masks."""
    yield from check_mask_values(layout, index)
    if lost := masks_without_image(layout, Path(raw_folder(config))):
        yield (
            f"reference masks without an image: {len(lost)}, the first is of {lost[0]}; they are left out. "
            "Complete the data, if they should train or be scored"
        )
    masks = config.dataset.get("masks")
    if not (is_folder_of_images(config) and masks):
        return
    masked = sum(scene.mask is not None for scene in index.scenes)
    if masked < len(index.scenes):
        images = set(image_names(Path(raw_folder(config)), "dataset.raw"))
        lost = [name for name in image_names(Path(masks), "dataset.masks") if name not in images]
        line = f"{masked} of {len(index.scenes)} images {'has' if masked == 1 else 'have'} a mask"
        yield line + (f"; no image has the name of the masks {', '.join(lost[:5])}" if lost else "")
    if not config.dataset.indices and not config.dataset.classes:
        meaning = ", ".join(f"{value} is {name}" for name, value in layout.indices.items())
        yield f"in masks, {meaning}; another order is typed as 'dataset.classes=[NAME,...]'"


def sources(config: DictConfig) -> list[Any]:
    """The classes in order, and every raw file; what was recorded where the raw folder is not given, or gone.

    Raises:
        UserError: There is no raw folder, it lies in the scenes or they in it, or they are of another.
    """
    scenes, order = Path(config.scenes), {"classes": list(config.dataset.classes or [])}
    manifest = read_if_whole(scenes)
    if manifest is not None and manifest.stage != "prepare":
        manifest = None  # refused by the engine, with a better line
    raw_is_set = not OmegaConf.is_missing(config.dataset, "raw")
    if config.dataset.get("town") is not None:
        identities: list[Any] = [order]
    elif manifest is not None and not (raw_is_set and Path(config.dataset.raw).is_dir()):
        identities = list(manifest.config["sources"])
        if isinstance(identities[0], dict):
            identities[0] = order
    else:
        identities = [order, *_raw_files(config, Path(raw_folder(config)))]
    if raw_is_set:
        _check_apart(scenes, Path(config.dataset.raw))
    if manifest is not None:
        check_raw(config, Artefact(scenes, manifest))
    return identities


def _given(config: DictConfig) -> dict[str, Any]:
    """Optional settings that change scenes: the nodata value, and channels that include an opacity band."""
    channels = plain(config, "dataset.channels")
    if not channels or not is_folder_of_images(config):
        return nodata_of(config)
    raw = None if OmegaConf.is_missing(config.dataset, "raw") else Path(config.dataset.raw)
    if raw is not None and raw.is_dir():
        named = names_opacity(raw_layout(config), raw)
    else:
        manifest = read_if_whole(Path(config.scenes))
        named = manifest is not None and "dataset.channels" in manifest.config
    return nodata_of(config) | ({"dataset.channels": channels} if named else {})


def _raw_files(config: DictConfig, raw: Path) -> list[Any]:
    if (fault := raw_fault(config)) is not None:
        raise UserError(fault)
    if is_folder_of_images(config):
        return _folder_sources(config, raw)
    return [identity(path) for path in sorted(raw.rglob("*")) if path.is_file()]


def _check_apart(scenes: Path, raw: Path) -> None:
    """Refuses scenes inside, equal to or above the raw folder: they would replace it, or be read as raw."""
    for inner, outer in ((scenes.resolve(), raw.resolve()), (raw.resolve(), scenes.resolve())):
        for path in (inner, *inner.parents):
            # A disk may take names in capitals for the same.
            if path == outer or (path.exists() and outer.exists() and path.samefile(outer)):
                raise UserError(
                    f"scenes={scenes} and the raw folder {raw} lie in one another: choose a scenes=... apart "
                    "from it"
                )


def _folder_sources(config: DictConfig, raw: Path) -> list[Any]:
    """The files in the folders, and of the table what the scenes depend on: everything but the tags."""
    layout = raw_layout(config)
    split = (layout.split.train, layout.split.val, layout.split.test, layout.split.numeric)
    folders = [raw, Path(config.dataset.masks)] if config.dataset.masks else [raw]
    table = Path(config.dataset.tags).resolve()
    files = [path for folder in folders for path in sorted(folder.iterdir()) if path.is_file()]
    # Hidden files are no images: the lock of the tagging page is one of them.
    files = [path for path in files if path.resolve() != table and not path.name.startswith(".")]
    return [layout.palette.names, split, *(identity(path) for path in files)]


FACTS = (
    *("name", "bands", "reference", "classes", "ignored", "indices", "range"),
    *("images", "masks", "split", "town"),
)

STAGE = Stage(
    "prepare",
    run,
    config_keys=(*(f"dataset.{key}" for key in FACTS), "quirks.unknown_colours_as_first_class"),
    free_keys=("dataset.channels", "dataset.nodata", "dataset.tags"),
    external_files=sources,
    optional_config=_given,
    subject=lambda used: str(used["dataset.name"]),
)
