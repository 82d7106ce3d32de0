"""What the engine would do with a stage, before it does anything."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from omegaconf import DictConfig

from ome.pipeline.artifacts import Artefact
from ome.pipeline.checksums import damaged, split_at
from ome.pipeline.inputs import find_inputs
from ome.pipeline.manifest import NAME, Manifest
from ome.pipeline.marks import MARK, PartialResult, State, read_if_whole, read_mark
from ome.pipeline.place import Place
from ome.pipeline.reuse import kept_files
from ome.pipeline.stage import Stage
from ome.pipeline.task import check_inputs, inherited_folder, task_of
from ome.pipeline.user_files import check_added


class Forecast(NamedTuple):
    """What `execute` would do with a stage.

    Attributes:
        state: `up to date`, `resumes` (in the partial folder) or `runs` (from the start).
        artefact: Folder of the result, and the part of its manifest that is known beforehand.
        partial: Existing files of a result that resumes, or that an earlier one shares with it.
        inputs: Artefacts that the stage reads.
        changes: What differs from the present result, see `ome.pipeline.task.Task`.
    """

    state: State
    artefact: Artefact
    partial: PartialResult | None
    inputs: Mapping[str, Artefact]
    changes: Sequence[str]


def forecast_of(
    stage: Stage,
    config: DictConfig,
    planned: Mapping[str, Artefact],
    *,
    force: bool = False,
    verify: bool = False,
) -> Forecast:
    """Tells what `execute` would do with the same arguments; writes and prints nothing.

    A fingerprint depends only on settings and other fingerprints, so it is known before the inputs exist.

    Args:
        stage: The stage.
        config: The configuration with this stage's settings under `stage`.
        planned: Future artefacts of the stages before it in the same command, by name.
        force: See `execute`.
        verify: See `execute`.

    Raises:
        UserError: See `execute`.
    """
    artefacts = find_inputs(stage.name, stage.needed(config), stage.optional_inputs, config, {}, planned)
    task = task_of(stage, config, artefacts)
    folder = task.place.folder
    task.place.check_finished()
    finished = {name: artefact for name, artefact in artefacts.items() if name not in planned}
    check_inputs(finished, verify=verify)
    state: State = "runs"
    partial = inherited = None
    if not force:
        state, partial = _state(task.place, task.fingerprint, verify=verify)
        if state != "up to date":
            inherited = inherited_folder(stage, config, task.fingerprint, verify=verify)
        if inherited is not None:
            state, partial, folder = "up to date", None, inherited
    manifest = Manifest(stage.name, task.fingerprint, task.used, task.inputs)
    if state != "up to date":
        check_added(folder)
    if state == "runs" and not force and (kept := kept_files(stage, config, folder, manifest)).names:
        partial = PartialResult(kept.folder, only=frozenset(kept.names))
    changes = [] if state == "up to date" else task.changes
    return Forecast(state, Artefact(folder, manifest), partial, artefacts, changes)


def _state(place: Place, fingerprint: str, *, verify: bool) -> tuple[State, PartialResult | None]:
    """The state after `recover`, `set_damaged_aside` and `open` of `Place`, and the files that remain."""
    for folder, hashed in ((place.partial, True), (place.folder, verify)):
        manifest = read_if_whole(folder)
        of_this = manifest is not None and manifest.fingerprint == fingerprint
        if manifest is None or not (of_this or folder == place.partial):
            continue
        wrong = damaged(folder, manifest.files, verify=hashed)
        if wrong == []:
            return ("up to date" if of_this else "runs"), None
        if of_this and wrong is not None:
            return "resumes", PartialResult(folder, frozenset(split_at(folder, wrong[0])[1]))
        if of_this and folder == place.folder:
            return "runs", None
    unfinished = (place.partial / MARK).exists() and not (place.partial / NAME).exists()
    if unfinished and read_mark(place.partial)[0] == fingerprint:
        return "resumes", PartialResult(place.partial)
    return "runs", None
