"""Compares weak with pixel-wise supervision: real data, several seeds, one table.

    python scripts/accuracy.py --data DATA --weights tf_efficientnet_lite0_fp16.pth
        [--sets vaihingen_parts] [--seeds 0 1 2] [--quick] [--output accuracy] [KEY=VALUE ...]

Each set and seed is a run of `experiment=accuracy`: the weak and the pixel-supervised segmenter have the same
recipe, steps and tiles. Finished runs are not repeated, and interrupted ones are resumed. `--quick` compares
recipes of the classifier: pseudo masks alone, after three passes over the tiles, one seed. Further settings
(KEY=VALUE) apply to every run; use another --output with them. `plan=true` only prints what would run. The
tables are printed, and written with the command to `accuracy.md` in the output folder: scores, and how many
pixels of the pseudo masks are wrong for each range of weights, which `weights.png` shows.

Minutes on one core of an Intel Xeon for Vaihingen, Potsdam and DeepGlobe: 26, 85 and 140 for a seed without
refinement (`stage.refine.rounds=0`); with `--quick` 7 and 23 for the first two.

DATA contains `isprs_slices` and `deepglobe_quarters`, each with a folder of settings for --config-dir.
"""

import argparse
import re
import shlex
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import NamedTuple

import numpy as np
from measuring import machine
from numpy.typing import NDArray
from omegaconf import OmegaConf

from ome.data.scene_index import SceneIndex
from ome.data.scenes import SceneReader
from ome.files import write_text
from ome.pipeline.layout import SEGMENTER_TITLES, TRAIN_TILES, read_pseudo_label, read_tag_table
from ome.pipeline.manifest import Manifest
from ome.plots.ablation_figures import BARS, calibration_figure
from ome.scoring.calibration import LEVELS, error_counts, merged_levels
from ome.scoring.rows import Row, read_rows
from ome.scoring.spread import spread
from ome.scoring.tables import markdown_lines, miou_ratio

SETS = {
    "potsdam_slices": ("isprs_slices", "potsdam", ["dataset.bands=irrg"]),
    "vaihingen_parts": ("isprs_slices", "vaihingen", ["dataset.tile.size=128", "dataset.tile.stride=128"]),
    "deepglobe_quarters": (
        "deepglobe_quarters",
        ".",
        ["dataset.tile.stride=512", "dataset.tile.cover=false"],
    ),
}
"""Folder of each set, its folder of images, and its settings; DeepGlobe has one tile per image, since all
four would take four times as long."""
QUICK = ["stage.until=pseudo", "stage.cam.epochs=3"]
DECIDED = {
    **dict.fromkeys(("dataset", "dataset.raw"), "--data and --sets"),
    **dict.fromkeys(("output", "scenes", "name", "run_dir"), "--output"),
    **dict.fromkeys(("stage", "stage.until", "experiment"), "--quick or none of them"),
    "backbone.weights": "--weights",
    "seed": "--seeds",
}
"""Settings that this script decides, and the options to type instead: tables would be titled wrongly."""
SETTING = re.compile(r"[+~]*(\w[\w./@]*)=")
STAGES = ("prepare", "labels", "cam", "pseudo", "seg", "refine")
WEAK, FULL = SEGMENTER_TITLES["weak"], SEGMENTER_TITLES["full"]


class Finished(NamedTuple):
    """The results of a run.

    Attributes:
        rows: Rows of scores by name.
        seconds: Time of all stages.
        errors: Right and wrong pixels of the pseudo masks by weight, see `error_counts`.
    """

    rows: dict[str, Row]
    seconds: float
    errors: NDArray[np.int64]

    def reached(self, title: str) -> float:
        """The mIoU of a row as a percentage of that of the pixel-supervised segmenter."""
        return miou_ratio({name: row.scores for name, row in self.rows.items()}, title, FULL)


def command(name: str, seed: int, options: argparse.Namespace) -> list[str]:
    """The command line of a run."""
    folder, images, settings = SETS[name]
    return [
        *(sys.executable, "-m", "ome.run", "--config-dir", str(options.data / folder / "settings")),
        *("stage=all", "experiment=accuracy", f"dataset={name}", f"seed={seed}"),
        *(f"dataset.raw={options.data / folder / images}", f"backbone.weights={options.weights}"),
        *(f"output={options.output}", f"scenes={options.output}/scenes/{name}", f"name={name}_{seed}"),
        *settings,
        *(QUICK if options.quick else []),
        *options.settings,
    ]


def finished(folder: Path, scenes: Path) -> Finished:
    """Reads the scores and times of a run."""
    places = [scenes if stage == "prepare" else folder / stage for stage in STAGES]
    manifests = [manifest for place in places if (manifest := Manifest.read(place)) is not None]
    rows = {row.name: row for place in places for row in read_rows(place)}
    return Finished(rows, sum(manifest.seconds for manifest in manifests), errors_of(folder, scenes))


def errors_of(folder: Path, scenes: Path) -> NDArray[np.int64]:
    """Counts the right and wrong pixels of a run's pseudo masks by weight."""
    index = SceneIndex.read(scenes)
    reader = SceneReader(index)
    errors = np.zeros((LEVELS, 2), dtype=np.int64)
    for tile in read_tag_table(folder / "labels", index).select("train", tagged=True).tiles:
        mask, weight = read_pseudo_label(folder / "pseudo", tile)
        errors += error_counts(weight, mask, reader.mask(tile))
    return errors


def table_of(name: str, runs: Sequence[Finished]) -> str:
    """The table of a set: all scores, and the ratio of the weak to the pixel-supervised segmenter."""
    classes = next(iter(runs[0].rows.values())).scores.names
    lines = []
    for title, row in runs[0].rows.items():
        scores = [run.rows[title].scores for run in runs]
        is_compared = row.scored_on != TRAIN_TILES and FULL in runs[0].rows
        ratio = spread([run.reached(title) for run in runs]) if is_compared else ""
        of_classes = zip(*(score.iou.tolist() for score in scores), strict=True)
        values = (spread([score.miou for score in scores]), ratio, *map(spread, of_classes))
        lines.append([f"{title} ({row.scored_on})", *map(str, values)])
    table = markdown_lines([name, "mIoU", "of pixel labels", *classes], lines, texts=1)
    minutes = statistics.mean([run.seconds for run in runs]) / 60
    seeds = "1 seed" if len(runs) == 1 else f"{len(runs)} seeds"
    return f"{table}\n{seeds}, {minutes:.0f} minutes each."


def mean_of_sets(runs: Mapping[str, Sequence[Finished]]) -> list[str]:
    """A line with the mean over the sets of the weak segmenter's ratio; none if a set lacks a segmenter."""
    if not all({WEAK, FULL} <= run.rows.keys() for of_set in runs.values() for run in of_set):
        return []
    ratios = [statistics.mean(run.reached(WEAK) for run in of_set) for of_set in runs.values()]
    return [f"{WEAK} / {FULL}, mean of {', '.join(runs)}: {100 * statistics.mean(ratios):.1f} %"]


def weight_table(name: str, errors: NDArray[np.int64]) -> str:
    """The table of the fraction of pixels and their error rate for each range of weights."""
    total = errors.sum()
    lines = [
        (level, f"{100 * (right + wrong) / total:.1f} %", f"{100 * wrong / (right + wrong):.1f} %")
        for level, (right, wrong) in merged_levels(errors, BARS).items()
    ]
    return markdown_lines((f"{name}, weight", "pixels", "wrong"), lines, texts=1)


def parsed() -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, usage=argparse.SUPPRESS
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--weights", type=Path, required=True, help="weights of tf_efficientnet_lite0")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--seeds", nargs="+", type=int, help="default: 0 1 2; with --quick 0")
    parser.add_argument("--quick", action="store_true", help="only pseudo masks, after three passes")
    parser.add_argument("--output", type=Path, help="default: accuracy; with --quick accuracy_quick")
    # argparse would take a setting after `--seeds 0` for a seed.
    settings = {word: match[1] for word in sys.argv[1:] if (match := SETTING.match(word))}
    options = parser.parse_args([word for word in sys.argv[1:] if word not in settings])
    for word, key in settings.items():
        if key in DECIDED:
            parser.error(f"{word} cannot be set: type {DECIDED[key]}")
    options.settings = list(settings)
    options.seeds = options.seeds or ([0] if options.quick else [0, 1, 2])
    options.output = options.output or Path("accuracy_quick" if options.quick else "accuracy")
    return options


def main() -> None:
    """Runs what is not finished, and writes the tables of the finished runs after each."""
    options = parsed()
    runs: dict[str, list[Finished]] = {}
    typed = shlex.join(["python", "scripts/accuracy.py", *sys.argv[1:]])
    plan = OmegaConf.from_dotlist(options.settings).get("plan", False)
    for seed in options.seeds:
        for name in options.sets:
            run = subprocess.run(command(name, seed, options), check=False)  # noqa: S603 - our own command line
            if run.returncode:  # the run has said why
                sys.exit(run.returncode)
            if plan:
                continue
            folder = options.output / f"{name}_{seed}"
            runs.setdefault(name, []).append(finished(folder, options.output / "scenes" / name))
            tables = [table_of(each, of_set) for each, of_set in runs.items()]
            tables += mean_of_sets(runs)
            errors = {each: np.sum([run.errors for run in of_set], axis=0) for each, of_set in runs.items()}
            calibration_figure(errors).savefig(options.output / "weights.png", dpi=150)
            tables += [weight_table(each, of_set) for each, of_set in errors.items()]
            heading = f"`{typed}`\n\n{date.today()}, {machine()}.\n"
            write_text(options.output / "accuracy.md", "\n\n".join([heading, *tables]) + "\n")
    if not plan:
        print((options.output / "accuracy.md").read_text())


if __name__ == "__main__":
    main()
