"""Calls from Python: checks their arguments, and loads the segmenters of runs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from ome.config.schema import general
from ome.config.schema.hints import expected, fits, hints_of
from ome.errors import UserError, first_line
from ome.inference.card import SegmenterCard, check_alike
from ome.inference.map_rows import windows_at_a_time
from ome.inference.predictor import Ensemble, Predictor
from ome.inference.segmenter_folders import trained_folder
from ome.pipeline.manifest import Manifest

DEFAULTS: Final = {
    "scales": (1.0,),
    "flip": True,
    "tta": None,
    "precision": "auto",
    "stride": 0.625,
    "batch": None,
}
"""The precision, and the settings `prediction.*` of a segmenter whose stage left no record."""


def check_arguments(typed: dict[str, Any], **switches: bool) -> None:
    """Checks arguments of `ome.predict` against the ranges of the settings of the same names.

    Args:
        typed: Arguments by name; None stands for the run's setting.
        **switches: Arguments that are True or False.

    Raises:
        UserError: An argument is out of range.
    """
    hints = hints_of(general.Prediction) | {"precision": hints_of(general.Trainer)["precision"]}
    for name, argument in typed.items():
        value = [*map(_plain, argument)] if isinstance(argument, tuple) else _plain(argument)
        if value is not None and not fits(value, hints[name]):
            raise UserError(f"{name}={value}: expected {expected(hints[name])}")
    for name, switch in switches.items():
        if not isinstance(switch, bool):
            raise UserError(f"{name}={switch!r}: expected True or False")


def views_of(segmenter: Path, typed: dict[str, Any]) -> tuple[dict[str, Any], float, int | None]:
    """The views of windows, the stride and the batch: as typed, else as the run was made with.

    Args:
        segmenter: Folder of a trained segmenter, whose stage recorded the settings of its predictions.
        typed: Arguments by the names of `DEFAULTS`; None where the run's setting is to be used.
    """
    manifest = Manifest.read(segmenter.parent)
    views = DEFAULTS | (manifest.config.get("prediction", {}) if manifest else {})
    views |= {name: value for name, value in typed.items() if value is not None}
    views = {name: views[name] for name in DEFAULTS}
    views["scales"] = tuple(views["scales"])
    return views, views.pop("stride"), views.pop("batch")


def _plain(value: Any) -> Any:  # noqa: ANN401 - an argument of any type
    """Converts numpy numbers to Python's."""
    return value.tolist() if isinstance(value, np.generic | np.ndarray) else value


def network_folders(run: str | Path | Sequence[str | Path], network: str | None) -> list[Path]:
    """The folders of the segmenters of one run or of several.

    Raises:
        UserError: No run is given, one is given twice, or one has no such segmenter.
    """
    if network is not None and not isinstance(network, str):
        raise UserError(f"network={network!r}: expected weak, full, round_1, ..., or None for the last one")
    try:
        runs = [run] if isinstance(run, str | bytes | Path) else [*run]
    except TypeError:  # no sequence, though an array without dimensions looks like one
        runs = [run]  # type: ignore[list-item]  # refused by `path_of`
    if not runs:
        raise UserError("no run is given: give the folder of a run, e.g. runs/potsdam_resnet50")
    folders = [trained_folder(path_of(folder, "run"), network) for folder in runs]
    resolved = [folder.resolve() for folder in folders]
    if twice := [folder for folder in folders if resolved.count(folder.resolve()) > 1]:
        raise UserError(f"{twice[0]} is given twice: give each run once, or its probabilities count twice")
    return folders


def path_of(value: object, name: str) -> Path:
    """An argument that is the path of a file or a folder.

    Raises:
        UserError: It is none, or empty.
    """
    if not isinstance(value, str | Path) or not str(value).strip() or "\0" in str(value):
        raise UserError(f"{name}={value!r}: expected a path, as text or pathlib.Path")
    return Path(value)


def segmenter_of(
    folders: Sequence[Path], device: str | None, batch: int | None, views: dict[str, Any]
) -> tuple[SegmenterCard, Ensemble, int]:
    """Loads segmenters whose probabilities are averaged.

    Args:
        folders: Those of `network_folders`.
        device: A torch device; None for the GPU if there is one.
        batch: Windows predicted together; None for what suits the device.
        views: Arguments of `Predictor`.

    Returns:
        The card, the predictor, and how many windows it takes together.

    Raises:
        UserError: The segmenters differ, or the device cannot be used.
    """
    cards = {folder: SegmenterCard.read(folder) for folder in folders}
    check_alike(cards)
    name = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        probe = torch.zeros(1, device=name)
        probe.cpu()  # fails on `meta`, a device without memory
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        raise UserError(
            f"device={name} cannot be used ({first_line(error)}): give cpu or cuda, or omit device"
        ) from error
    by_folder = {
        folder: Predictor(card.load(folder), probe.device, **views) for folder, card in cards.items()
    }
    card = cards[folders[0]] if len(folders) == 1 else cards[folders[0]].uncalibrated()
    card = card.for_views(views["scales"], flip=views["flip"], tta=views["tta"])
    windows = windows_at_a_time(batch, card.tile, probe.device)
    return card, Ensemble([by_folder[folder] for folder in folders]), windows
