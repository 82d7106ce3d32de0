"""A folder of a user's images with a table of tags, as a raw dataset."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ome.data.image_tags import Outline, outline
from ome.data.names import check_name, normal_form
from ome.data.palette import Palette, colours_of, distinct_colours
from ome.data.raw import RawLayout, limits_of
from ome.data.raw_source import ANY_IMAGE, RawSource
from ome.data.raw_split import Split
from ome.data.row_checks import check_rows, check_unlisted
from ome.data.scene_index import SPLITS
from ome.errors import UserError, no_folder
from ome.files import is_file
from ome.geo.raster_folder import format_hint, subfolder_hint
from ome.geo.sidecars import sidecars_of

NO_TABLE: Final = "dataset.tags is not set: type dataset.tags=/path/to/tags.csv (or .xlsx)"
"""The error line of a folder of images without a table of tags."""


def folder_layout(facts: Mapping[str, Any], raw: Path) -> RawLayout:
    """Builds the layout of a folder of images, with classes and splits from the table of tags.

    An image without a row in the table is not trained on; it belongs to the test split and is mapped.

    Args:
        facts: `name`; `bands` and `reference` (any words); `tags`: the table, see `outline`; `classes`:
            names, names with colours, or nothing to take them from the table; `ignored`: names with colours;
            `indices`: values of the classes in masks; `masks`: a folder, or nothing; `channels`; `range`: the
            limits of 16-bit images, or nothing; `unknown_as_first`, see `Palette`. Masks have the names of
            their images. Without `indices` they are painted in the colours given with the classes; without
            such colours they hold 0 for the first class, 1 for the second and so on, 255 for none.
        raw: The folder of images.

    Raises:
        UserError: A folder is missing or has no image, the table is missing or wrong, a row has no image,
            there is no image to train on, a mask is among the images, or none has the name of an image.
    """
    if not facts.get("tags"):
        raise UserError(NO_TABLE)
    table = Path(facts["tags"])
    classes = facts.get("classes") or ()
    if isinstance(classes, Mapping):
        classes = _by_name(classes)
    names = tuple(normal_form(str(name)) for name in classes)
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(f"dataset.classes: {twice[0]} is named twice; name it once")
    tagged = outline(table, names)
    images = image_names(raw, "dataset.raw")
    check_rows(tagged, images, table, raw)
    check_unlisted(tagged, images, table, raw, masks=bool(facts.get("masks")))
    if "train" not in tagged.splits.values():
        raise UserError(f"{table} leaves no image to train on: set the split of some rows to train")
    palette = _palette(tagged.names, classes, facts)
    indices = _by_name(facts.get("indices") or {})
    if not indices and not isinstance(classes, Mapping):
        indices = {name: index for index, name in enumerate(tagged.names)}
    masks = _masks(facts.get("masks"), images)
    return RawLayout(
        name=str(facts["name"]),
        palette=palette,
        split=_split(tagged, images),
        images={str(facts["bands"]): ANY_IMAGE},
        masks={str(facts["reference"]): masks} if masks else {},
        bands=str(facts["bands"]),
        reference=str(facts["reference"]),
        channels=tuple(facts.get("channels") or ()),
        indices=indices,
        limits=limits_of(facts.get("range")),
        partial=True,
        nodata=facts.get("nodata"),
    )


def image_files(paths: Sequence[Path]) -> set[Path]:
    """Those of the files that are images, or change what is read from an image beside them."""
    files = [path for path in paths if path.is_file()]
    siblings: dict[Path, dict[str, Path]] = {}
    for path in files:
        siblings.setdefault(path.parent, {})[path.name.lower()] = path
    images = [path for path in files if ANY_IMAGE.scene_of(path.name)]
    return {*images, *(file for image in images for file in sidecars_of(image, siblings[image.parent]))}


def image_names(folder: Path, key: str) -> list[str]:
    """Names of the images in a folder, sorted, without suffixes; not of those in its subfolders.

    Raises:
        UserError: The folder does not exist, no GeoTIFF, PNG or JPEG is in it, one has a name that cannot be
            used everywhere, or is a link to a file that does not exist.
    """
    if not folder.is_dir():
        raise UserError(f"{key}: {no_folder(folder)}")
    stems = ((path, ANY_IMAGE.scene_of(path.name)) for path in folder.iterdir())
    unique = {name for path, name in stems if name is not None and is_file(path)}
    names = sorted(check_name(name, f"{key}: the image") for name in unique)
    if not names:
        hints = subfolder_hint(folder) + format_hint(folder)
        raise UserError(f"{key}: no GeoTIFF, PNG or JPEG in {folder}{hints}")
    return names


def _split(tagged: Outline, images: Sequence[str]) -> Split:
    of_split = (tuple(n for n in images if tagged.splits.get(n, "test") == split) for split in SPLITS)
    train, val, test = of_split
    return Split(train, val, test)


def _by_name(values: Mapping[Any, Any]) -> dict[str, Any]:
    return {normal_form(str(name)): value for name, value in values.items()}


def _palette(names: Sequence[str], classes: object, facts: Mapping[str, Any]) -> Palette:
    ignored = facts.get("ignored") or {}
    colours = classes if isinstance(classes, Mapping) else distinct_colours(names)
    try:
        return Palette(colours_of(colours), colours_of(ignored), bool(facts.get("unknown_as_first")))
    except (TypeError, ValueError, AttributeError) as error:
        raise UserError(
            "dataset.classes and dataset.ignored: give colours as {NAME: [RED, GREEN, BLUE], ...}"
        ) from error


def _masks(folder: str | None, images: Sequence[str]) -> RawSource | None:
    if not folder:
        return None
    names = image_names(Path(folder), "dataset.masks")
    if not set(names) & set(images):
        raise UserError(
            f"dataset.masks: none of the {len(names)} masks in {folder} has an image's name, one is called "
            f"{names[0]}: name the mask of {images[0]} {images[0]}.png or .tif"
        )
    return RawSource(str(Path(folder).resolve() / ANY_IMAGE.pattern))
