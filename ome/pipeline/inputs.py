"""What a stage reads: the finished results of stages before it, made from one another.

What lies in a run's own folder was put there by its user, stage by stage, and is read as long as its parts
were made from one another. What lies in another run was made for that one, and is read only where it fits.
"""

import difflib
from collections.abc import Collection, Mapping
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from ome.distributed.collectives import is_rank_zero
from ome.errors import UserError
from ome.pipeline.artifacts import Artefact, stage_folder
from ome.pipeline.inheritance import inherited_result
from ome.pipeline.manifest import NAME, Manifest
from ome.progress import console


def find_inputs(
    stage: str,
    needed: Collection[str],
    used: Collection[str],
    config: DictConfig,
    folders: Mapping[str, Path],
    planned: Mapping[str, Artefact] | None = None,
) -> dict[str, Artefact]:
    """Finds the finished folders of the stages that a stage reads.

    Args:
        stage: The stage that reads them.
        needed: Names of those it cannot do without.
        used: Names of those it reads where they are there.
        config: The configuration with the reading stage's settings under `stage`.
        folders: Folders that this command has found or made already, by stage.
        planned: What the stages before will have left, where nothing is made yet; then nothing is printed.

    Raises:
        UserError: A needed one is nowhere, or was made from other things than the rest, or the one of another
            run does not fit; the line names the command that makes it.
    """
    inputs: dict[str, Artefact] = {}
    for name in (*needed, *used):
        if planned and name in planned:
            inputs[name] = planned[name]
            continue
        folder = folders.get(name, stage_folder(config, name))
        if (manifest := Manifest.read(folder)) is not None:
            inputs[name] = Artefact(folder, manifest)
            continue
        if (folders or planned) and name not in needed:
            continue  # `stage=all` has made what belongs to its story
        inherited, misfits = inherited_result(config, name, inputs)
        if inherited is not None:
            inputs[name] = inherited
        elif name in needed:
            unfit = "".join(f"; {misfit}" for misfit in misfits[:1])
            runs = [place.parents[1].name for place in folder.parents[1].glob(f"*/{name}/{NAME}")]
            near = difflib.get_close_matches(folder.parent.name, runs, n=1)
            guess = f"did you mean name={near[0]}? or " if near else ""
            raise UserError(
                f"stage={stage} needs the result of stage={name}, which is not in {folder}{unfit}: "
                f"{guess}run the same command with stage={name} first, or with stage=all"
            )
    if "prepare" in inputs:
        check_raw(config, inputs["prepare"])
    return _of_one_origin(stage, needed, inputs, quiet=planned is not None)


def _of_one_origin(
    stage: str, needed: Collection[str], inputs: Mapping[str, Artefact], *, quiet: bool
) -> dict[str, Artefact]:
    """The inputs without those, of the optional ones, that were made from other versions of the rest."""
    stale: set[str] = set()
    for name, (folder, manifest) in inputs.items():
        for before, fingerprint in manifest.inputs.items():
            if before in inputs and (before in stale or inputs[before].manifest.fingerprint != fingerprint):
                stale.add(name)
                line = f"{folder} was made from another {before} than {inputs[before].folder} is now"
                if name in needed:
                    raise UserError(f"stage={stage}: {line}: run stage={name} again, or stage=all")
                if is_rank_zero() and not quiet:
                    console.print(f"[yellow]left out[/]: {line}", highlight=False)
                break
    return {name: artefact for name, artefact in inputs.items() if name not in stale}


def check_raw(config: DictConfig, scenes: Artefact) -> None:
    """Tells two datasets of one name apart.

    Raises:
        UserError: The scenes are of another raw folder than the configuration's, and both folders are there.
    """
    recorded = Path(scenes.manifest.counts.get("raw", ""))
    raw = "" if OmegaConf.is_missing(config.dataset, "raw") else config.dataset.get("raw", "")
    # A town is the same in every folder.
    if not recorded.name or not raw or config.dataset.get("town") is not None:
        return
    if recorded.is_dir() and Path(raw).is_dir() and not recorded.samefile(raw):
        raise UserError(
            f"{scenes.folder} holds the scenes of {recorded}, not of dataset.raw={raw}: give each dataset "
            f"its own dataset.name=..., or delete {scenes.folder}"
        )
