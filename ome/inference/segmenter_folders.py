"""Folders of trained segmenters within a run."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from ome.errors import UserError, no_folder
from ome.pipeline.artifacts import inherited_results
from ome.pipeline.layout import NETWORK, round_folders
from ome.pipeline.manifest import Manifest

SEGMENTER_STAGES: Final = ("refine", "seg")
"""Stages that train segmenters, the last one first."""


def trained_folder(run: Path, network: str | None = None) -> Path:
    """The folder of a segmenter's training within a run; see `stage_of_network`.

    Raises:
        UserError: The run does not exist or did not train the segmenter.
    """
    if not run.is_dir():
        raise UserError(f"{no_folder(run)}: give the folder of a run, e.g. runs/potsdam_resnet50")
    folders = segmenter_stages(run)
    stage = stage_of_network(network, folders)
    if not folders:
        raise UserError(f"{run} is not the folder of a run with a segmenter: give one such as runs/valley")
    return network_folder(next((one for one in folders if one.name == stage), run / stage), network)


def segmenter_stages(run: Path) -> list[Path]:
    """The folders of the stages that trained a run's segmenters, the last one first; some are inherited."""
    own = Manifest.read(run / "seg")
    folders = {
        folder.name: folder
        for folder, manifest in inherited_results(run)
        # Rounds of another run start from its segmenter, not from one that this run has trained since.
        if own is None or manifest.inputs.get("seg") in {None, own.fingerprint}
    }
    folders |= {name: run / name for name in SEGMENTER_STAGES if (run / name).is_dir()}
    return [folders[name] for name in SEGMENTER_STAGES if name in folders]


def stage_of_network(network: str | None, folders: Iterable[Path], setting: str = "network") -> str:
    """The stage that holds a segmenter.

    Args:
        network: `weak`, `full` or `round_1`, `round_2`, ...; None for the last one that was trained.
        folders: Folders of `SEGMENTER_STAGES` in which to look for the last one.
        setting: Address of the setting of that segmenter, for messages.

    Raises:
        UserError: There can be no such segmenter.
    """
    if network in {"weak", "full"}:
        return "seg"
    if network is not None:
        if re.fullmatch(r"round_\d+", network):
            return "refine"
        raise UserError(
            f"{setting}={network}: choose weak, full, round_1 (of refine), or null for the latest"
        )
    finished = (
        folder.name
        for folder in folders
        if Manifest.read(folder) is not None
        # Without a round, refine did not train a segmenter.
        and (folder.name == "seg" or round_folders(folder))
    )
    return next(finished, "seg")


def network_folder(stage_folder: Path, network: str | None) -> Path:
    """The folder of a segmenter's training within that of its stage; see `stage_of_network`.

    Raises:
        UserError: The stage did not train it.
    """
    rounds = round_folders(stage_folder)
    names = ["full", "weak", *(path.name for path in rounds)]
    # `is_trained` is a collective call, and rank 0 may call this function alone.
    trained = [name for name in names if (stage_folder / name / NETWORK).exists()]
    if not trained or network not in {None, *trained}:
        choices = f"choose one of {', '.join(trained)}" if trained else "run stage=seg first"
        missing = f"segmenter {network}" if network else "segmenter"
        raise UserError(f"{stage_folder} has no {missing}: {choices}")
    return stage_folder / (network or trained[-1])
