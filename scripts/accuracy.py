"""Compares weak with pixel-wise supervision: real data, several seeds, one table.

    python scripts/accuracy.py --data DATA
        [--sets vaihingen_parts] [--seeds 0 1 2] [--quick] [--output accuracy] [KEY=VALUE ...]

Each set and seed is a run of `experiment=accuracy`: the weak and the pixel-supervised segmenter have the same
recipe, steps and tiles. Finished runs are not repeated, and interrupted ones are resumed. `--quick` compares
recipes of the classifier: pseudo masks alone, after two or three passes over the tiles, one seed. Settings
(KEY=VALUE) apply to every run; use another --output with them. `plan=true` only prints what would run. The
tables are printed, and written with the command to `accuracy.md` in the output folder: scores, and how many
pixels of the pseudo masks are wrong for each range of weights, which `weights.png` shows.

Minutes on one core of an Intel Xeon for Vaihingen, Potsdam and DeepGlobe: 26, 85 and 140 for a seed without
refinement (`stage.refine.rounds=0`). `--quick` takes 5, 12 and 19 on two cores.

DATA contains `isprs_slices` and `deepglobe_quarters`, each with a folder of settings for --config-dir.
"""

import argparse
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import numpy as np
from accuracy_tables import Finished, finished, mean_of_sets, table_of, weight_table
from measuring import machine
from omegaconf import OmegaConf

from ome.cli.commands import quoted_settings
from ome.files import write_text
from ome.plots.ablation_figures import calibration_figure

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
QUICK = {"potsdam_slices": 3, "vaihingen_parts": 3, "deepglobe_quarters": 2}
"""Passes over the tiles for a first look, in some hundred steps."""
DECIDED = {
    **dict.fromkeys(("dataset", "dataset.raw"), "--data and --sets"),
    **dict.fromkeys(("output", "scenes", "name", "run_dir"), "--output"),
    **dict.fromkeys(("stage", "stage.until", "experiment"), "--quick or none of them"),
    "backbone.weights": "--weights",
    "seed": "--seeds",
}
"""Settings that this script decides, and the options to type instead: tables would be titled wrongly."""
SETTING = re.compile(r"[+~]*(\w[\w./@]*)=")


def command(name: str, seed: int, options: argparse.Namespace) -> list[str]:
    """The command line of a run."""
    folder, images, settings = SETS[name]
    paths = {
        "dataset.raw": options.data / folder / images,
        "backbone.weights": options.weights,
        "output": options.output,
        "scenes": options.output / "scenes" / name,
    }
    return [
        *(sys.executable, "-m", "ome.run", "--config-dir", str(options.data / folder / "settings")),
        *("stage=all", "experiment=accuracy", f"dataset={name}", f"seed={seed}", f"name={name}_{seed}"),
        *quoted_settings(**paths),
        *settings,
        *(["stage.until=pseudo", f"stage.cam.epochs={QUICK[name]}"] if options.quick else []),
        *options.settings,
    ]


def run(words: Sequence[str]) -> int:
    """Runs a command, and returns its status; a signal that ends this script is passed on."""
    with subprocess.Popen(words) as process:  # noqa: S603 - our own command line
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda received, _: process.send_signal(received))
        try:
            return process.wait()
        except KeyboardInterrupt:  # which the terminal has sent to both
            return process.wait()


def parsed() -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, usage=argparse.SUPPRESS
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument(
        "--weights",
        default="package",
        help="weights of tf_efficientnet_lite0: a file, or those of ome[weights]",
    )
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--seeds", nargs="+", type=int, help="default: 0 1 2; with --quick 0")
    parser.add_argument("--quick", action="store_true", help="only pseudo masks, after few passes")
    parser.add_argument("--output", type=Path, help="default: accuracy; with --quick accuracy_quick")
    # argparse would take a setting after `--seeds 0` for a seed.
    settings = {word: match[1] for word in sys.argv[1:] if (match := SETTING.match(word))}
    options = parser.parse_args([word for word in sys.argv[1:] if word not in settings])
    for word, key in settings.items():
        if key in DECIDED:
            parser.error(f"{word} cannot be set: type {DECIDED[key]}")
    options.settings = list(settings)
    options.sets = list(dict.fromkeys(options.sets))
    options.seeds = list(dict.fromkeys(options.seeds or ([0] if options.quick else [0, 1, 2])))
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
            if status := run(command(name, seed, options)):  # the run has said why
                sys.exit(status)
            if plan:
                continue
            folder = options.output / f"{name}_{seed}"
            runs.setdefault(name, []).append(
                finished(folder, options.output / "scenes" / name, quick=options.quick)
            )
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
