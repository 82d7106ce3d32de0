"""Scores of finished runs, with the settings that each score depends on."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from omegaconf import OmegaConf

from ome.damage import read_undamaged
from ome.errors import UserError
from ome.pipeline.artifacts import results_of
from ome.pipeline.manifest import RESOLVED, Manifest
from ome.scoring.rows import Row, read_rows
from ome.scoring.scores import Scores
from ome.scoring.spread import flatten

_IGNORED = ("seed", "sources")
"""Recorded configuration that does not distinguish results: repetitions differ in it."""


@dataclass(frozen=True)
class ScoredResult:
    """A row of scores of one run.

    Attributes:
        row: The scores.
        settings: Flat settings of the stage and of the stages that it depends on.
        seed: Seed of the latest training that the result depends on; None if unknown.
    """

    row: Row
    settings: dict[str, Hashable]
    seed: Hashable


def scored_results(runs: Sequence[Path], others: Sequence[Path]) -> Iterator[ScoredResult]:
    """Yields the scores of the runs' stages; `report` and `compare` only repeat scores of other stages.

    Args:
        runs: Folders of the runs to compare.
        others: Folders of runs whose stages these may have read; only their settings are used.
    """
    compared = [(run, artefact) for run in runs for artefact in results_of(run)]
    known = [*(one for _, one in compared), *(artefact for run in others for artefact in results_of(run))]
    by_fingerprint = {manifest.fingerprint: manifest for _, manifest in known}
    datasets = {run: _dataset(run) for run in runs}
    fingerprints: set[str] = set()
    scored: list[tuple[Path, dict[str, Hashable], Hashable]] = []
    for run, (folder, manifest) in compared:
        # The same result in two folders is not a repetition.
        if manifest.stage in {"report", "compare"} or manifest.fingerprint in fingerprints:
            continue
        fingerprints.add(manifest.fingerprint)
        settings = _settings(manifest, by_fingerprint) | datasets[run]
        scored.append((folder, settings, _seed(manifest, by_fingerprint)))
    # An interrupted run does not name its dataset; take the name from another run of the same scenes.
    names = {
        one["scenes"]: one["dataset.name"] for _, one, _ in scored if {"scenes", "dataset.name"} <= {*one}
    }
    for folder, settings, seed in scored:
        if (scenes := settings.get("scenes")) in names:
            settings.setdefault("dataset.name", names[scenes])
        yield from (ScoredResult(row, settings, seed) for row in read_rows(folder))


def _settings(manifest: Manifest, by_fingerprint: Mapping[str, Manifest]) -> dict[str, Hashable]:
    """The settings of a stage, and of all known stages that it depends on."""
    settings: dict[str, Hashable] = {}
    for name, fingerprint in manifest.inputs.items():
        if (required := by_fingerprint.get(fingerprint)) is not None:
            settings |= _settings(required, by_fingerprint)
        elif name == "prepare":  # scores on other scenes are not repetitions
            settings["scenes"] = fingerprint
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


def _seed(manifest: Manifest, by_fingerprint: Mapping[str, Manifest]) -> Hashable:
    """The seed of a stage, or of the latest training that it depends on; None if unknown."""
    if "seed" in manifest.config:
        return str(manifest.config["seed"])
    required = (by_fingerprint.get(fingerprint) for fingerprint in reversed(manifest.inputs.values()))
    seeds = (_seed(one, by_fingerprint) for one in required if one is not None)
    return next((seed for seed in seeds if seed is not None), None)


def with_same_classes(results: Sequence[ScoredResult]) -> list[ScoredResult]:
    """The results with their classes in the order of the first result.

    Raises:
        UserError: The results have different classes.
    """
    names, reordered = results[0].row.scores.names, list[ScoredResult]()
    for result in results:
        scores = result.row.scores
        if set(scores.names) != set(names):
            raise UserError(
                f"stage.compare.runs: there are runs of the classes {', '.join(names)}, and runs of "
                f"{', '.join(scores.names)}: compare them separately"
            )
        order = [scores.names.index(name) for name in names]
        row = replace(result.row, scores=Scores(scores.matrix[np.ix_(order, order)], names))
        reordered.append(replace(result, row=row))
    return reordered
