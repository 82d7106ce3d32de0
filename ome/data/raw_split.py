"""The split of a raw dataset's scenes into training, validation and test."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias

from ome.data.archives import RawFiles
from ome.data.names import check_name, normal_form
from ome.data.scene_index import SPLITS, SplitName
from ome.errors import UserError
from ome.files import plain_text
from ome.progress import console

Listing: TypeAlias = tuple[str, ...] | Path
"""Scene names, or a text file with one name a line."""


@dataclass(frozen=True)
class Split:
    """The definition of a split.

    Attributes:
        train: Training scenes.
        val: Validation scenes; may be empty.
        test: Test scenes; may be empty.
        numeric: Instead of the lists: the numbers of training, validation and test scenes, taken as the
            first, the next and the last of all scenes, sorted as numbers.
        folders: Instead of the lists: folders by split, as names or ends of paths. The innermost listed
            folder of a scene decides; scenes in none of them are skipped.
        skip_absent: Skip listed scenes without an image.
    """

    train: Listing = ()
    val: Listing = ()
    test: Listing = ()
    numeric: tuple[int, int, int] | None = None
    folders: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    skip_absent: bool = False


def split_from_facts(value: Mapping[str, Any]) -> Split:
    """Builds a split from `dataset.split`; see `ome.data.raw.layout_from_facts`."""
    train_list, val_list, test_list = (_listing(value.get(name)) for name in SPLITS)
    numeric, folders = value.get("numeric"), value.get("folders")
    # Lists win: a user types them to override the dataset's own split.
    lists = train_list or val_list or test_list
    if folders is not None and numeric is not None and not lists:
        raise UserError(
            f"dataset.split.numeric={list(numeric)} and dataset.split.folders={dict(folders)} both define "
            "the split: type dataset.split.folders=null, or dataset.split.numeric=null"
        )
    if folders is not None and not lists:
        return Split(folders={name: tuple(map(str, folders.get(name) or ())) for name in SPLITS})
    if numeric is None or lists:
        return Split(train_list, val_list, test_list, skip_absent=value.get("absent") == "skip")
    if len(numeric) != 3:
        raise UserError(f"dataset.split.numeric={list(numeric)}: give three counts (train, val, test)")
    train, val, test = (int(count) for count in numeric)
    return Split(numeric=(train, val, test))


def _listing(value: str | Sequence[str | int] | None) -> Listing:
    return Path(value) if isinstance(value, str) else tuple(normal_form(str(name)) for name in value or ())


def resolve_split(split: Split, raw: Path, images: RawFiles) -> list[tuple[str, SplitName]]:
    """Lists the scenes of a dataset.

    Args:
        split: Lists, list files, counts or folders.
        raw: The raw folder. A list file may be given relative to it, or by name if it is beside the images.
            Each line is the name of a scene or of its image.
        images: The images.

    Returns:
        Name and split of each scene, train before val before test.

    Raises:
        UserError: When a list file is missing or empty, there is nothing to train on, a scene is listed
            twice, or there are fewer scenes than counted.
    """
    if split.numeric is not None:
        listed = _numeric(split.numeric, images)
    elif split.folders:
        listed = _by_folder(split.folders, images)
    else:
        listed = {name: _names(getattr(split, name), raw, name, images) for name in SPLITS}
    if split.skip_absent:
        listed = _present(listed, images)
    if not listed["train"]:
        raise UserError("dataset.split.train is empty: list the scenes to train on")
    split_of: dict[str, SplitName] = {}
    for split_name in SPLITS:
        for scene in listed[split_name]:
            check_name(scene, f"dataset.split.{split_name}: the scene")
            if scene in split_of:
                both = f"dataset.split.{split_of[scene]} and dataset.split.{split_name}"
                raise UserError(f"scene {scene} is listed twice, in {both}: list it once")
            split_of[scene] = split_name
    return list(split_of.items())


def _numeric(counts: tuple[int, int, int], images: RawFiles) -> dict[SplitName, Sequence[str]]:
    names = images.scenes()
    if words := [name for name in names if not name.isdecimal()]:
        raise UserError(
            f"dataset.split.numeric: {words[0]} in {images.where} is not a number; list the scenes"
        )
    setting = f"dataset.split.numeric={list(counts)}"
    if min(counts) < 0:
        raise UserError(f"{setting}: counts cannot be negative")
    if sum(counts) > len(names):
        raise UserError(
            f"{setting} needs {sum(counts)} scenes and {images.where} has {len(names)}: give smaller counts, "
            "or lists by dataset.split.train=... and dataset.split.test=..."
        )
    train, val, test = counts
    ordered = sorted(names, key=int)
    return {
        "train": ordered[:train],
        "val": ordered[train : train + val],
        "test": ordered[len(names) - test :],
    }


def _by_folder(folders: Mapping[str, tuple[str, ...]], images: RawFiles) -> dict[SplitName, Sequence[str]]:
    listed: dict[SplitName, list[str]] = {name: [] for name in SPLITS}
    # Cached, since thousands of scenes may be in one folder.
    split_of = cache(partial(_split_of, folders))
    with_scenes: set[PurePosixPath] = set()
    for scene in images.scenes():
        folder = images.folder_of(scene)
        if folder is None:
            continue
        with_scenes.add(folder)
        if (split := split_of(folder)) is not None:
            listed[split].append(scene)
    if not any(listed.values()):
        listing = ", ".join(folder for split in folders.values() for folder in split)
        raise UserError(f"dataset.split.folders: no scene of {images.where} is in {listing or 'a folder'}")
    places = {place for folder in with_scenes for place in (folder, *folder.parents)}
    empty = [name for names in folders.values() for name in names if not any(p.match(name) for p in places)]
    if empty:
        console.print(
            f"[yellow]dataset.split.folders: there is no folder {', '.join(empty)}[/]: check for another "
            "version of the dataset, a typing error, or a part that was not downloaded"
        )
    return {**listed}


def _split_of(folders: Mapping[str, tuple[str, ...]], folder: PurePosixPath) -> SplitName | None:
    for outer in (folder, *folder.parents):
        for split in SPLITS:
            if any(outer.match(name) for name in folders.get(split, ())):
                return split
    return None


def _present(listed: Mapping[SplitName, Sequence[str]], images: RawFiles) -> dict[SplitName, Sequence[str]]:
    present = {split: [name for name in names if images.find(name)] for split, names in listed.items()}
    total, left = (sum(map(len, lists.values())) for lists in (listed, present))
    if left < total:
        console.print(
            f"[yellow]{total - left} of {total} listed scenes have no image and are skipped[/] "
            "(dataset.split.absent=refuse makes that an error)"
        )
    return {**present}


def _names(listing: Listing, raw: Path, split: SplitName, images: RawFiles) -> Sequence[str]:
    if isinstance(listing, tuple):
        return listing
    file = _list_file(listing, raw)
    if (text := plain_text(file.read_bytes(), file) if file else images.text(listing.name)) is not None:
        lines = [name for line in text.splitlines() if (name := normal_form(line))]
        if not lines:
            raise UserError(f"{listing} is empty: list one scene a line")
        return [images.source.scene_of(name) or name for name in lines]
    places = f"{listing}" if listing.is_absolute() else f"{listing} or {raw / listing}"
    raise UserError(f"dataset.split.{split}: the list {places} does not exist")


def list_files(split: Split, raw: Path) -> set[Path]:
    """The list files of a split that are not in an archive."""
    listings = [one for one in (split.train, split.val, split.test) if isinstance(one, Path)]
    files = [(_list_file(one, raw), one.name) for one in listings]
    return {path for file, name in files for path in ([file] if file else raw.rglob(name))}


def _list_file(listing: Path, raw: Path) -> Path | None:
    """The file of that path as typed, else of that path in the raw folder, if either exists."""
    return next((path for path in (listing, raw / listing) if path.is_file()), None)
