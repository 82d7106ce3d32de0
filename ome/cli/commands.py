"""The commands `ome train IMAGES`, `ome predict RUN SCENE` and so on, translated to settings of `ome.run`."""

import argparse
import os
import re
from collections.abc import Callable, Sequence
from glob import glob
from pathlib import Path
from typing import Final

from ome.cli.last_command import repeated_words
from ome.cli.parser import parsers
from ome.data.sheets import default_table
from ome.errors import UserError, no_folder, shell_word
from ome.geo.scene_list import names_many
from ome.geo.vsi import scene_at
from ome.pipeline.layout import command_files

_SETTINGS: Final = "; a setting is typed as KEY=VALUE without dashes, e.g. stage.cam.epochs=3"


def words_of(arguments: Sequence[str]) -> list[str]:
    """The arguments of `python -m ome.run` for a command; changes to the working folder of the run's command.

    Args:
        arguments: As typed after `ome`.

    Raises:
        UserError: A folder does not exist or is not the folder of a run; see also `Arguments.parse`.
    """
    settings = [word for word in arguments if is_key_value(word)]
    command, *words = (word for word in arguments if word not in settings)
    options = parsers()[command].parse(words, _SETTINGS)
    return [*_WORDS[command](options), *settings]


def is_key_value(word: str) -> bool:
    """Whether a word is KEY=VALUE, not a run, a scene or a pattern, whose names may contain `=` too."""
    is_key = re.fullmatch(r"[+~]{0,2}\w[\w./@-]*=.*", word, re.DOTALL)
    # os.path and glob: a setting may be longer than a path can be.
    return bool(is_key) and not os.path.exists(word) and not glob(word)  # noqa: PTH110, PTH207


def _train(options: argparse.Namespace) -> list[str]:
    images = options.images
    if not images.is_dir():
        remedy = "give the folder of the images"
        if images.exists():
            remedy = "put it alone into one, tag its windows (ome tags FOLDER --tile 256), and give that"
        raise UserError(f"{no_folder(images)}: {remedy}")
    tags = options.tags or default_table(images)
    if not tags.exists():  # what else it may be, reading it tells
        remedy = f"fill one with ome tags {shell_word(images)} --classes NAME,NAME, or give it by --tags"
        raise UserError(f"the table of tags {tags} does not exist: {remedy}")
    name = options.name or images.resolve().name
    paths = {"dataset.raw": images, "dataset.tags": tags, "dataset.masks": options.masks}
    paths = {key: path for key, path in paths.items() if path is not None}
    config_dir = [f"--config-dir={options.config_dir.absolute()}"] if options.config_dir else []
    settings = quoted_settings(**{"dataset.name": name, "name": name}, **paths)
    return [*config_dir, "stage=all", "dataset=custom", *settings]


def _predict(options: argparse.Namespace) -> list[str]:
    run, *others = options.run
    for other in others:
        if other.is_file():  # most likely the shell's answer to an unquoted pattern
            pattern = other.parent / f"*{other.suffix}"
            raise UserError(
                f"{other} is a file, not a run, and the last word alone is the scene: for several scenes "
                f"type a quoted pattern, '{pattern}', a folder, or a list of scenes (.txt, one a line)"
            )
    many = names_many(options.scene)
    scene = Path(options.scene).absolute() if many else scene_at(options.scene).absolute()
    if isinstance(scene, Path) and not many:
        if not scene.exists():
            raise UserError(f"{options.scene} does not exist: give a raster, or a folder of them")
        if scene.is_dir() and command_files(scene):
            raise UserError(
                f"{options.scene} is the folder of a run: type the scene, or a folder of them, after it"
            )
    chosen: dict[str, object] = {
        f"stage.predict.{key}": True
        for key in ("confidence", "probabilities", "polygons")
        if getattr(options, key)
    }
    chosen["stage.predict.scene"] = str(scene) if isinstance(scene, Path) else scene.address
    if options.name:
        chosen["stage.predict.map_name"] = options.name
    averaged = [f"stage.predict.others=[{','.join(quoted(other.absolute()) for other in others)}]"]
    return [*words_of_run(run), "stage=predict", *quoted_settings(**chosen), *(averaged if others else [])]


def _export(options: argparse.Namespace) -> list[str]:
    target = {"stage.export.target": options.target} if options.target else {}
    return [*words_of_run(options.run), "stage=export", *quoted_settings(**target)]


def _compare(options: argparse.Namespace) -> list[str]:
    runs = ",".join(quoted(run) for run in options.runs)
    form = [f"stage.compare.format={options.format}"] if options.format else []
    return ["stage=compare", "name=comparison", f"stage.compare.runs=[{runs}]", *form]


_WORDS: Final[dict[str, Callable[[argparse.Namespace], list[str]]]] = {
    "train": _train,
    "resume": lambda options: [*words_of_run(options.run), "stage=all"],
    "predict": _predict,
    "report": lambda options: [*words_of_run(options.run), "stage=report"],
    "suggest": lambda options: [*words_of_run(options.run), "stage=suggest"],
    "export": _export,
    "compare": _compare,
}
COMMANDS: Final = tuple(_WORDS)
"""Names of the commands."""


def words_of_run(folder: Path) -> list[str]:
    """The settings of a run's last command, and `run_dir` for its folder.

    Raises:
        UserError: See `repeated_words`.
    """
    run_dir = folder.absolute()  # the working folder changes
    return [*repeated_words(folder), *quoted_settings(run_dir=run_dir)]


def quoted_settings(**values: object) -> list[str]:
    """Settings as words of a command, with values that Hydra reads as they are.

    Raises:
        UserError: A value would be read as a reference to another setting.
    """
    return [f"{key}={quoted(value)}" for key, value in values.items()]


def quoted(value: object) -> str:
    """A value quoted for Hydra's grammar: a folder may be named `1e5`, `nan` or `true`.

    Raises:
        UserError: It would be read as a reference to another setting.
    """
    if isinstance(value, bool):
        return str(value).lower()
    text = str(value)
    if "${" in text:
        raise UserError(f"{text} contains ${{, which settings replace: rename it, or make a link to it")
    plain = text.isascii() and all(letter.isalnum() or letter in "/._-" for letter in text)
    is_word = text[:1].isalpha() and text.lower() not in {"true", "false", "null", "nan", "inf"}
    if plain and ("/" in text or is_word):
        return text
    return "'" + re.sub(r"(\\*)('|$)", lambda match: match[1] * 2 + ("\\'" if match[2] else ""), text) + "'"
