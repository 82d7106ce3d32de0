"""Finds the inputs of a stage: finished results of earlier stages that are consistent with one another.

Results in the run's own folder are used as they are, as long as each was made from the others. Results of
another run are used only if they match the configuration.
"""

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.markup import escape

from ome.errors import UserError, guess, shell_word
from ome.pipeline.artifacts import Artefact, stage_folder
from ome.pipeline.changes import edited_files, same_files
from ome.pipeline.inheritance import inherited_result, other_config
from ome.pipeline.manifest import NAME, Manifest, recorded
from ome.pipeline.marks import artefacts_in, read_if_whole
from ome.pipeline.registry import SIDE_STAGES, find_stage
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
        needed: Names of the required stages.
        used: Names of the optional stages, which are read if their results exist.
        config: The configuration with the reading stage's settings under `stage`.
        folders: Folders that this command has already found or written, by stage.
        planned: Future artefacts of earlier stages, for a plan; nothing is printed then.

    Raises:
        UserError: A required result is missing, was made from other versions of the other inputs, or that of
            another run does not match; the message names the command that computes it.
    """
    inputs: dict[str, Artefact] = {}
    # What a map reads itself, such as prediction.tta, counts for the map.
    own = find_stage(stage, config).config_keys if stage in SIDE_STAGES else ()
    for name in (*needed, *used):
        if planned and name in planned:
            inputs[name] = planned[name]
            continue
        folder = folders.get(name, stage_folder(config, name))
        if (manifest := Manifest.read(folder)) is not None:
            inputs[name] = Artefact(folder, manifest)
            if name in needed and name not in folders and planned is None:
                _say_other_settings(stage, name, folder, other_config(config, manifest, own))
            continue
        if (folders or planned) and name not in needed:
            continue  # `stage=all` has already run the optional stages that are enabled
        inherited, misfits = inherited_result(config, name, inputs)
        if inherited is not None:
            inputs[name] = inherited
        elif name in needed:
            unfit = "".join(f"; {misfit}" for misfit in misfits[:1])
            raise UserError(
                f"stage={stage} needs the result of stage={name}, which is not in {folder}{unfit}: "
                f"{_remedy(stage, name, folder, config)}"
            )
    if "prepare" in inputs and "prepare" not in folders:
        check_raw(config, inputs["prepare"], reads_names=stage == "labels" and planned is None)
    return _consistent(stage, needed, inputs, quiet=planned is not None)


def _say_other_settings(stage: str, name: str, folder: Path, misfit: str | None) -> None:
    """Points out a setting that does not count, as an earlier stage was made with another one."""
    if misfit is not None:
        console.print(
            f"[yellow]{folder} was made with {escape(misfit)}[/]: stage={stage} reads it as it is; type "
            f"stage={name} first, or stage=all, for the setting to count"
        )


def _remedy(stage: str, name: str, folder: Path, config: DictConfig) -> str:
    """What to type where the result of a stage is not in its folder: a run of the same scenes may have it."""
    run = folder.parent
    if stage in (*SIDE_STAGES, "report") and name != "prepare" and any(artefacts_in(run)):
        return f"continue the run first: ome resume {shell_word(run)}"
    scenes = read_if_whole(stage_folder(config, "prepare"))
    results = {place.parents[1].name: place.parent for place in run.parent.glob(f"*/{name}/{NAME}")}
    runs = [
        other
        for other, result in results.items()
        if scenes
        and (manifest := read_if_whole(result))
        and manifest.inputs.get("prepare") == scenes.fingerprint
    ]
    hint = guess(run.name, runs, "did you mean name={}? or ", "")
    return f"{hint}run the same command with stage={name} first, or with stage=all"


def _consistent(
    stage: str, needed: Collection[str], inputs: Mapping[str, Artefact], *, quiet: bool
) -> dict[str, Artefact]:
    """The inputs without the optional ones that were made from other versions of the others."""
    stale: set[str] = set()
    for name, (folder, manifest) in inputs.items():
        for before, fingerprint in manifest.inputs.items():
            if before in inputs and (before in stale or inputs[before].manifest.fingerprint != fingerprint):
                stale.add(name)
                line = f"{folder} was made from another {before} than {inputs[before].folder} is now"
                if name in needed:
                    raise UserError(f"stage={stage}: {line}: run stage={name} again, or stage=all")
                if not quiet:
                    console.print(f"[yellow]left out[/]: {line}")
                break
    return {name: artefact for name, artefact in inputs.items() if name not in stale}


def check_raw(
    config: DictConfig,
    scenes: Artefact,
    files: Sequence[tuple[Path, list[Any]]] | None = None,
    *,
    reads_names: bool = False,
) -> None:
    """Detects two datasets of the same name, and points out raw files that have changed.

    Args:
        config: The configuration.
        scenes: The prepared scenes.
        files: The raw files of the configured folder, see `recorded`; None to look them up if they matter.
        reads_names: Whether the stage looks up scenes by the names in a table, which another dataset may use.

    Raises:
        UserError: The scenes were prepared from other files than those of the configured raw folder, and the
            folder that they were prepared from exists, or the stage reads names.
    """
    before = Path(scenes.manifest.counts.get("raw", ""))
    raw = "" if OmegaConf.is_missing(config.dataset, "raw") else config.dataset.get("raw", "")
    # The procedural town does not depend on the folder.
    if not before.name or not raw or config.dataset.get("town") is not None or not Path(raw).is_dir():
        return
    exists = before.is_dir()
    is_same = exists and before.samefile(raw)
    if (is_same or not exists) and not (reads_names and scenes.manifest.hashes):
        return
    if files is None:
        list_files = find_stage("prepare", config).external_files
        with recorded() as present, suppress(UserError):  # e.g. the images were deleted to save space
            if list_files is not None:
                list_files(config)
        files = present
    deleted = not files and (is_same or not exists)
    if deleted or same_files(files, scenes.manifest, times=is_same):
        return
    first = "type stage=prepare first, or stage=all"
    if is_same:
        console.print(
            f"[yellow]{escape(str(raw))} has changed since {escape(str(scenes.folder))} was prepared[/]: "
            f"the scenes are read as they are; {first}, for the change to count"
        )
        return
    of = str(before) if exists else f"other files, once in {before}"
    if exists and (edited := edited_files(files, scenes.manifest)):
        raise UserError(
            f"{scenes.folder} holds the scenes of {of}; {len(edited)} of {len(files)} files in "
            f"dataset.raw={raw} have another content, such as {edited[0]}: if they were edited in a copy of "
            f"the project, delete {scenes.folder}, and the same command prepares them; if they are another "
            "dataset, give it its own name, dataset.name=... (ome train: --name)"
        )
    remedy = "" if exists else f"{first}; or "
    raise UserError(
        f"{scenes.folder} holds the scenes of {of}, not of dataset.raw={raw}: {remedy}give each dataset "
        f"its own name, dataset.name=... (ome train: --name), or delete {scenes.folder}"
    )
