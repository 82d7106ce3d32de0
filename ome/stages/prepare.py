"""Raw archives -> tiled GeoTIFF scenes and their index."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.markup import escape

from ome.config.raw_data import is_folder_of_images, is_raw_set, nodata_of, raw_fault, raw_folder, raw_layout
from ome.data.folder import image_files, image_names
from ome.data.mask_values import check_mask_values, table_conflict
from ome.data.names import near_names
from ome.data.prepare import masks_without_image, names_opacity, prepare_scenes
from ome.data.raw import RawLayout
from ome.data.raw_split import list_files
from ome.data.scene_index import SceneIndex
from ome.distributed.collectives import is_rank_zero
from ome.errors import UserError, few
from ome.pipeline.artifacts import plain
from ome.pipeline.manifest import NAME, identity
from ome.pipeline.marks import MARK, PARTIAL, read_if_whole
from ome.pipeline.stage import Stage, Work
from ome.progress import console, print_table
from ome.synthetic.town import write_town


def run(work: Work) -> dict[str, Any]:
    """Reads every scene of the splits once and writes it as GeoTIFF, on rank 0 only."""
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
            f"[yellow]{len(index.broken)} scenes cannot be read and are skipped[/]:",
            escape(few(index.broken)),
        )
    classes_are_typed = not is_folder_of_images(work.config) or work.config.dataset.get("classes")
    similar = [] if classes_are_typed else near_names(layout.palette.names)
    for line in [*similar, *_mask_warnings(work.config, layout, index)]:
        console.print(f"[yellow]{escape(line)}[/]")
    if is_folder_of_images(work.config):
        bands = list(layout.channels or index.channels)
        console.print(f"{len(index.scenes)} images, bands {bands}")
    scenes = {split: len(index.split(split)) for split in ("train", "val", "test")}
    if labelled := sum(index.class_pixels.values()):
        print_table(
            ", ".join(f"{count} {split}" for split, count in scenes.items()) + " scenes",
            ("class", "labelled pixels", "percent"),
            [
                (name, str(pixels), f"{100 * pixels / labelled:.2f}")
                for name, pixels in index.class_pixels.items()
            ],
        )
    return {
        "raw": str(raw.resolve()),
        "scenes": scenes,
        "class_pixels": index.class_pixels,
        "unknown_pixels": index.unknown.pixels,
        "broken_scenes": len(index.broken),
    }


def _mask_warnings(config: DictConfig, layout: RawLayout, index: SceneIndex) -> Iterator[str]:
    """Warnings about the values of the masks, and about masks and images without a counterpart."""
    yield from check_mask_values(layout, Path(raw_folder(config)), index)
    if conflict := table_conflict(layout, Path(raw_folder(config)), index):
        if is_folder_of_images(config) and not config.dataset.indices:
            raise UserError(conflict)
        yield conflict
    if unmatched := masks_without_image(layout, Path(raw_folder(config))):
        yield (
            f"reference masks without an image: {len(unmatched)}, the first is of {unmatched[0]}; they are "
            "skipped. Add the images to use these masks"
        )
    masks = config.dataset.get("masks")
    if not (is_folder_of_images(config) and masks):
        return
    masked = sum(scene.mask is not None for scene in index.scenes)
    if masked < len(index.scenes):
        images = set(image_names(Path(raw_folder(config)), "dataset.raw"))
        unmatched = [name for name in image_names(Path(masks), "dataset.masks") if name not in images]
        line = f"{masked} of {len(index.scenes)} images {'has' if masked == 1 else 'have'} a mask"
        yield line + (f"; no image has the name of the masks {', '.join(unmatched[:5])}" if unmatched else "")
    if not config.dataset.indices and not config.dataset.classes:
        meaning = ", ".join(f"{value} is {name}" for name, value in layout.indices.items())
        yield f"in masks, {meaning}; for another order type 'dataset.classes=[NAME,...]'"


def sources(config: DictConfig) -> list[Any]:
    """The order of the classes and the identities of the raw files.

    If the raw folder is not set or does not exist, the identities are those in the manifest of the scenes.

    Raises:
        UserError: There is neither a raw folder nor a manifest, or the raw folder and the folder of the
            scenes overlap.
    """
    scenes, order = Path(config.scenes), {"classes": list(config.dataset.classes or [])}
    manifest = read_if_whole(scenes)
    if manifest is not None and manifest.stage != "prepare":
        manifest = None  # the engine refuses this folder with a clearer message
    raw_is_set = is_raw_set(config)
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
    return identities


def _optional_settings(config: DictConfig) -> dict[str, Any]:
    """Optional settings that change scenes: the nodata value, and channels that include an opacity band."""
    channels = plain(config, "dataset.channels")
    if not channels or not is_folder_of_images(config):
        return nodata_of(config)
    raw = Path(config.dataset.raw) if is_raw_set(config) else None
    if raw is not None and raw.is_dir():
        with_opacity = names_opacity(raw_layout(config), raw)
    else:
        manifest = read_if_whole(Path(config.scenes))
        with_opacity = manifest is not None and "dataset.channels" in manifest.config
    return nodata_of(config) | ({"dataset.channels": channels} if with_opacity else {})


def _raw_files(config: DictConfig, raw: Path) -> list[Any]:
    if (fault := raw_fault(config)) is not None:
        raise UserError(fault)
    if is_folder_of_images(config):
        return _folder_sources(config, raw)
    below = [*raw.rglob("*")]
    own = {path.parent for path in below if path.name == NAME and read_if_whole(path.parent)}
    own |= {folder for folder in below if folder.name.endswith(PARTIAL) and (folder / MARK).exists()}
    own |= {folder.parent / "logs" for folder in own}  # a run may lie among the raw data
    paths = [path for path in below if own.isdisjoint(path.parents)]
    archives = {path for path in paths if path.suffix.lower() == ".zip" and path.is_file()}
    lists = list_files(raw_layout(config).split, raw)
    return [identity(path) for path in sorted(image_files(paths) | archives | lists)]


def _check_apart(scenes: Path, raw: Path) -> None:
    """Checks that neither folder contains the other: scenes could replace raw data, or be read as raw data.

    Raises:
        UserError: One contains the other, or they are the same.
    """
    for inner, outer in ((scenes.resolve(), raw.resolve()), (raw.resolve(), scenes.resolve())):
        for path in (inner, *inner.parents):
            # samefile: the file system may ignore case.
            if path == outer or (path.exists() and outer.exists() and path.samefile(outer)):
                raise UserError(
                    f"scenes={scenes} and the raw folder {raw} overlap: choose scenes=... outside of {raw}"
                )


def _folder_sources(config: DictConfig, raw: Path) -> list[Any]:
    """Class names, split, and the identities of images and masks: scenes do not depend on the tags."""
    layout = raw_layout(config)
    split = (layout.split.train, layout.split.val, layout.split.test, layout.split.numeric)
    folders = [raw, Path(config.dataset.masks)] if config.dataset.masks else [raw]
    files = [path for folder in folders for path in sorted(image_files([*folder.iterdir()]))]
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
    optional_config=_optional_settings,
    subject=lambda used: str(used["dataset.name"]),
)
