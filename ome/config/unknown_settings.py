"""Error lines for settings that do not exist: what else to type."""

import difflib
from typing import Any, Final

from omegaconf import Node, OmegaConf

from ome.config.schema import Settings
from ome.config.schema.hints import addresses as settings_below
from ome.config.trainer import RESERVED, known_arguments
from ome.scoring.spread import flatten

FIRST_GUESSES: Final = {
    "tile": "dataset.tile.size",
    "tile_size": "dataset.tile.size",
    "crop_size": "dataset.tile.size",
    "classes": "dataset.classes",
    "num_classes": "dataset.classes",
    "batch_size": "stage.cam.batch or segmenter.recipe.batch",
    "learning_rate": "stage.cam.lr or segmenter.recipe.lr",
    "scheduler": "stage.cam.schedule or segmenter.recipe.schedule",
    "gpus": "trainer.devices",
    "device": "trainer.accelerator",
    "num_workers": "trainer.workers",
    "model": "backbone or segmenter",
    "optim": "optimizer or segmenter/recipe",
    "pretrained": "backbone.weights",
    "weights": "backbone.weights or segmenter.weights",
    "data": "dataset.raw",
    "data_dir": "dataset.raw",
    "path": "dataset.raw",
    "root": "dataset.raw",
    "images": "dataset.raw",
    "tags": "dataset.tags",
    "stage.cam.steps": "stage.cam.epochs",
    "stage.cam.max_steps": "stage.cam.epochs",
    "segmenter.recipe.epochs": "segmenter.recipe.steps",
    "steps": "segmenter.recipe.steps",
    "max_steps": "segmenter.recipe.steps",
    "seeds": "seed",
}
"""Our addresses of settings that have other names in other tools; single words also below `dataset`."""


def unknown_setting(key: str, parent: Node, typed: str) -> str:
    """Suggests addresses for a mistyped or shortened setting, else lists the settings beside it.

    Args:
        key: The address up to the part that does not exist, such as `recipe` of `recipe.steps`.
        parent: The settings among which that part was looked for, or to which it was added by `+`.
        typed: The whole address.
    """
    root: Any = parent._get_root()  # noqa: SLF001 - the one way from a node to its configuration
    above, _, last = key.rpartition(".")
    siblings = [str(name) for name in parent if name not in {"hydra", last}]  # type: ignore[attr-defined]  # a container
    near = difflib.get_close_matches(last, siblings, n=1)
    if typed != key and not near:
        ends = (typed, typed.rpartition(".")[2])
        for addresses in (_addresses(root, key, end) for end in ends):
            if others := [address for address in addresses if not address.startswith(f"{key}.")]:
                return f"unknown setting {typed}: type {' or '.join(others)}"
    if line := _elsewhere(key, above, last):
        return line
    names = {address.rpartition(".")[2] for address in _addresses(root, above)} - {last}
    if addresses := [address for address in _addresses(root, above, last) if address != key]:
        hint = f"type {' or '.join(addresses)}"
    elif near:
        hint = f"did you mean {f'{above}.{near[0]}'.removeprefix('.')}?"
    elif key in {address for address, _ in settings_below(Settings)}:
        return f"unknown setting {key} in this configuration: add it by +{key}=..."
    elif near := difflib.get_close_matches(last, sorted(names), n=1, cutoff=0.75):
        hint = f"did you mean {' or '.join(_addresses(root, above, near[0]))}?"
    else:  # without siblings it is of an option that is not selected, such as callbacks=device_stats
        hint = f"known are {', '.join(siblings)}" if siblings else f"type {above}={last} first"
    return f"unknown setting {key}: {hint}"


def _elsewhere(key: str, above: str, last: str) -> str | None:
    """The way to a setting that has another name here, or that is an argument of Lightning's Trainer."""
    if guess := FIRST_GUESSES.get(last if above in {"", "dataset"} else key):
        return f"unknown setting {key}: type {guess}"
    if last == "_target_":
        return f"unknown setting {key}: add it by +{key}=..."
    if above == "trainer" and last in RESERVED:
        return f"{key} is set by ome: {RESERVED[last]}"
    if above == "trainer" and last in known_arguments():
        return f"unknown setting {key} in this configuration: add this argument of pl.Trainer by +{key}=..."
    return None


def _addresses(root: object, above: str, last: str = "") -> list[str]:
    """The addresses such as `stage.cam.lr` that end in a name, preferably those of the selected stage."""
    plain: Any = OmegaConf.to_container(root, resolve=False)
    stage = (plain.get("stage") or {}).get("name")
    matches = [
        key
        for key in flatten(plain)
        if not key.startswith("hydra.") and key.endswith(f".{last}" if last else "")
    ]
    of_stage = [key for key in matches if last and key.startswith(f"stage.{stage}.")]
    return of_stage or [key for key in matches if key.startswith("stage.") or above != "stage"] or matches
