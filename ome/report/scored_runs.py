"""Scores of finished runs, with the settings that each score depends on."""

import hashlib
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
from omegaconf import OmegaConf

from ome.damage import read_undamaged
from ome.data.scene_index import INDEX
from ome.errors import UserError, few
from ome.files import read_csv
from ome.pipeline.artifacts import results_of
from ome.pipeline.checksums import NAME as FILES
from ome.pipeline.layout import TAG_SCORES
from ome.pipeline.manifest import RESOLVED, Manifest
from ome.scoring.rows import Row
from ome.scoring.scores import Scores
from ome.scoring.spread import flatten

_IGNORED = ("seed", "sources")
"""Recorded configuration that does not distinguish results: repetitions differ in it."""


@dataclass(frozen=True)
class TagRow:
    """How well a classifier predicts the tags of the tiles of `val`.

    Attributes:
        f1: F1 in [0, 1] by class; nan for a class that no tile has.
        name: Name of the result.
        scored_on: Split and unit.
    """

    f1: dict[str, float]
    name: str = "predicted tags"
    scored_on: str = "val tiles"


R = TypeVar("R", bound=Row | TagRow)


@dataclass(frozen=True)
class ScoredResult(Generic[R]):
    """A row of scores of one run.

    Attributes:
        row: The scores.
        settings: Flat settings of the stage and of the stages that it depends on.
        seed: Seed of the latest training that the result depends on; None if unknown.
        run: Folder of the run.
    """

    row: R
    settings: dict[str, Hashable]
    seed: Hashable
    run: Path


def tag_rows(folder: Path) -> list[TagRow]:
    """The row of stage cam; an empty list if no tile of `val` has tags, and for other stages."""
    if not (folder / TAG_SCORES).exists():
        return []
    f1: dict[str, float] = {}
    for row in read_csv(folder / TAG_SCORES):
        shown, given, right = (int(row[key]) for key in ("shown", "given", "right"))
        f1[row["class"]] = 2 * right / (shown + given) if shown else float("nan")
    return [TagRow(f1)]


def scored_results(
    runs: Sequence[Path], others: Sequence[Path], rows_of: Callable[[Path], list[R]]
) -> Iterator[ScoredResult[R]]:
    """Yields the scores of the runs' stages; `report` and `compare` only repeat scores of other stages.

    Args:
        runs: Folders of the runs to compare.
        others: Folders of runs whose stages these may have read; only their settings are used.
        rows_of: Reads the scores of a stage, `read_rows` or `tag_rows`.
    """
    compared = [(run, artefact) for run in runs for artefact in results_of(run)]
    known = [*(one for _, one in compared), *(artefact for run in others for artefact in results_of(run))]
    by_fingerprint = {manifest.fingerprint: manifest for _, manifest in known}
    datasets = {run: _dataset(run) for run in runs}
    same = _same_scenes(runs)
    fingerprints: set[str] = set()
    scored: list[tuple[Path, Path, dict[str, Hashable], Hashable]] = []
    for run, (folder, manifest) in compared:
        # The same result in two folders is not a repetition.
        if manifest.stage in {"report", "compare"} or manifest.fingerprint in fingerprints:
            continue
        fingerprints.add(manifest.fingerprint)
        settings = _settings(manifest, by_fingerprint) | datasets[run]
        if (scenes := settings.get("scenes")) in same:
            settings["scenes"] = same[scenes]
        scored.append((run, folder, settings, _seed(manifest, by_fingerprint)))
    # An interrupted run does not name its dataset, and equal scenes may have several names: the first.
    names: dict[Hashable, Hashable] = {}
    for *_, one, _ in scored:
        if {"scenes", "dataset.name"} <= {*one}:
            names.setdefault(one["scenes"], one["dataset.name"])
    for run, folder, settings, seed in scored:
        if (scenes := settings.get("scenes")) in names:
            settings["dataset.name"] = names[scenes]
        yield from (ScoredResult(row, settings, seed, run) for row in rows_of(folder))


def _settings(manifest: Manifest, by_fingerprint: Mapping[str, Manifest]) -> dict[str, Hashable]:
    """The settings of a stage, and of all known stages that it depends on."""
    settings: dict[str, Hashable] = {}
    for name, fingerprint in manifest.inputs.items():
        if (required := by_fingerprint.get(fingerprint)) is not None:
            settings |= _settings(required, by_fingerprint)
        elif name == "prepare":  # scores on other scenes are not repetitions
            settings["scenes"] = fingerprint
    if manifest.stage != "prepare" and manifest.hashes:  # a table of tags may be edited where it lies
        content = hashlib.sha256(" ".join(manifest.hashes).encode()).hexdigest()[:8]
        settings[f"stage.{manifest.stage}.files"] = content
    recorded = {
        f"stage.{manifest.stage}" if key == "stage" else key: value
        for key, value in manifest.config.items()
        if key not in _IGNORED
    }
    return settings | flatten(recorded)


def _dataset(run: Path) -> dict[str, Hashable]:
    """The name of a run's dataset; empty if none of the run's commands has finished."""
    for settings in read_undamaged(sorted(run.glob(f"logs/*/{RESOLVED}"))):
        name = OmegaConf.select(OmegaConf.create(settings), "dataset.name")
        if name is not None:
            return {"dataset.name": str(name)}
    return {}


def _same_scenes(runs: Sequence[Path]) -> dict[Hashable, Hashable]:
    """Fingerprint of each run's scenes -> that of the first scenes of the same files, of whatever name."""
    first: dict[Hashable, Hashable] = {}
    same: dict[Hashable, Hashable] = {}
    for run in runs:
        for settings in read_undamaged(sorted(run.glob(f"logs/*/{RESOLVED}"))):
            folder = Path(str(settings.get("scenes")))
            if (manifest := Manifest.read(folder)) is None or not (folder / FILES).is_file():
                continue
            files = {(row["name"], row["sha256"]) for row in read_csv(folder / FILES) if row["name"] != INDEX}
            same[manifest.fingerprint] = first.setdefault(frozenset(files), manifest.fingerprint)
    return same


def _seed(manifest: Manifest, by_fingerprint: Mapping[str, Manifest]) -> Hashable:
    """The seed of a stage, or of the latest training that it depends on; None if unknown."""
    if "seed" in manifest.config:
        return str(manifest.config["seed"])
    required = (by_fingerprint.get(fingerprint) for fingerprint in reversed(manifest.inputs.values()))
    seeds = (_seed(one, by_fingerprint) for one in required if one is not None)
    return next((seed for seed in seeds if seed is not None), None)


def with_same_classes(results: Sequence[ScoredResult[Row]]) -> list[ScoredResult[Row]]:
    """The results with their classes in the order of the first result.

    Raises:
        UserError: The results have different classes.
    """
    check_classes([(result.run, result.row.scores.names) for result in results])
    names, reordered = results[0].row.scores.names, list[ScoredResult[Row]]()
    for result in results:
        scores = result.row.scores
        order = [scores.names.index(name) for name in names]
        row = replace(result.row, scores=Scores(scores.matrix[np.ix_(order, order)], names))
        reordered.append(replace(result, row=row))
    return reordered


def check_classes(of_results: Sequence[tuple[Path, Collection[str]]]) -> None:
    """Refuses runs of different classes.

    Args:
        of_results: The run and the classes of each result.

    Raises:
        UserError: See above.
    """
    first, expected = of_results[0]
    for run, names in of_results:
        if different := sorted({*expected} ^ {*names}):
            raise UserError(
                f"{first} and {run} have other classes (only in one of them: {few(different)}): compare "
                "runs of the same classes"
            )
