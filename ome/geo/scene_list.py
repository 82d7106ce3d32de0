"""Lists of scenes: a text file with a scene per line, or a glob pattern."""

from glob import glob, has_magic
from pathlib import Path
from typing import Final

from ome.errors import UserError
from ome.files import plain_text
from ome.geo.vsi import scene_at

SUFFIX: Final = ".txt"
"""Suffix of a list of scenes."""


def names_many(text: str) -> bool:
    """Whether a text is the path of a list of scenes, existing or not, or a pattern."""
    if not isinstance(scene_at(text), Path) or Path(text).is_dir():  # a URL may have a question mark
        return False
    return Path(text).suffix.lower() == SUFFIX or (has_magic(text) and not Path(text).exists())


def listed_scenes(text: str) -> list[str] | None:
    """The scenes of a list or a pattern, without duplicates.

    Args:
        text: A text file with a scene per line: a path (a relative one starts at the file's folder) or a
            URL. Lines that begin with # are comments. Or a pattern such as `/data/*.tif`; `**` stands for
            folders of any depth.

    Returns:
        The scenes in the order of the file, or sorted; None where the text is neither.

    Raises:
        UserError: The file does not exist or lists no scene, or nothing matches the pattern.
    """
    if not names_many(text):
        return None
    path = Path(text)
    if path.suffix.lower() != SUFFIX:
        matches = glob(text, recursive=True)  # noqa: PTH207 - Path.glob takes no absolute pattern
        scenes = sorted(str(Path(match).absolute()) for match in matches)
        if not scenes:
            raise UserError(f"no file matches {text}: check the pattern")
        return scenes
    if not path.is_file():
        raise UserError(f"the list of scenes {path} does not exist: check the path")
    lines = [line.strip() for line in plain_text(path.read_bytes(), f"the list {path}").splitlines()]
    listed = [line for line in lines if line and not line.startswith("#")]
    scenes = [
        str((path.parent / line).absolute()) if isinstance(scene_at(line), Path) else line for line in listed
    ]
    if not scenes:
        raise UserError(f"{path} lists no scene: write the path of one on each line")
    unique: dict[tuple[str, str], str] = {}
    for scene in scenes:
        unique.setdefault(_same(scene), scene)
    return [*unique.values()]


def name_of_list(text: str) -> str:
    """Name of a list's table of areas: that of the file, or of the folder that a pattern searches."""
    path = Path(text)
    if path.suffix.lower() == SUFFIX:
        return path.stem
    plain = [part for part in path.parts[:-1] if not has_magic(part) and part != path.anchor]
    return plain[-1] if plain else "scenes"


def _same(scene: str) -> tuple[str, str]:
    """The key by which duplicates are found: the file, and the name of its map."""
    path = scene_at(scene)
    return (str(path.resolve()), path.name) if isinstance(path, Path) else (scene, "")
