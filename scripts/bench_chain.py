"""Times every stage at the published settings on synthetic tiles, and projects the time of three data sets.

    python scripts/bench_chain.py [--steps 2] [--experiments ome_potsdam ome_vaihingen ome_deepglobe]
                                  [--images 2] [--device cuda] [KEY=VALUE ...]

Networks are those of the experiments, with random weights. Tiles are synthetic and in memory: the time to
read and augment them is not included, since loader processes do that in parallel. A training step is that of
the module of `stage=cam` or `stage=seg` with its optimiser, in the precision of the trainer. On a GPU a step
has the published batch, and wall-clock time is measured. On a CPU a step has `--images` tiles, the CPU time
of the process is measured (so that other work on the machine matters little), and scaled to the published
batch. Further settings change the experiments, e.g. `crf.backend=torch` computes the CRF on the GPU.

The projection multiplies the measured seconds by the tiles and steps of the published chain, and divides them
by cores or GPUs as printed below the table.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import torch
from chain_clock import Clock
from chain_stages import PRESENT, Chain
from measuring import composed, cores, heading
from omegaconf import DictConfig

from ome.data.tiles import Length, automatic_epochs, automatic_steps

EFFICIENCY: Final = 0.9
"""Efficiency of training steps whose batches are divided among eight GPUs: assumed, not measured."""


@dataclass(frozen=True)
class DataSet:
    """Number of training tiles (an upper bound: all pass the filter), and megapixels of the mapped scenes."""

    tiles: int
    megapixels: float


DATASETS: Final = {
    "ome_potsdam": DataSet(23 * 46**2, 14 * 36.0),
    "ome_vaihingen": DataSet(16 * 19 * 15, 17 * 5.0),
    "ome_deepglobe": DataSet(563 * 64, 120 * 2448**2 / 1e6),
}


class Line(NamedTuple):
    """A row of the table.

    Attributes:
        title: Name of the stage.
        unit: What is counted: steps, tiles or megapixels.
        seconds: Seconds per unit.
        units: Number of units.
        by_cores: Whether cores do the work, not GPUs.
        training: Whether the units are steps of a training.
    """

    title: str
    unit: str
    seconds: float
    units: float
    by_cores: bool
    training: bool

    def hours(self, count: int, *, gpu: bool) -> float:
        """Returns the hours on `count` cores, or `count` GPUs with as many cores each as this machine has."""
        if self.by_cores:
            workers: float = count * cores() if gpu else count
        else:
            workers = count * EFFICIENCY if self.training and count > 1 else count
        return self.seconds * self.units / workers / 3600


def lines(chain: Chain, config: DictConfig, data: DataSet, *, gpu: bool) -> Iterator[Line]:
    """Measures the stages in order."""
    settings, recipe, rounds = config.stage.cam, config.segmenter.recipe, config.stage.refine.rounds
    epochs = settings.epochs or automatic_epochs(data.tiles, settings.batch)
    steps, cpu = Length.of_epochs(epochs, data.tiles, settings.batch).total_steps, not gpu
    crf = cpu or config.crf.backend != "torch"
    count = 1 + rounds
    of_segmenter = recipe.steps or automatic_steps(data.tiles, recipe.batch)
    yield Line("classifier", "step", chain.cam_step(), steps, cpu, True)
    yield Line("multi-scale CAMs", "tile", chain.cam_tile(), data.tiles, cpu, False)
    yield Line("pseudo masks, all rounds", "tile", chain.pseudo_tile(), data.tiles * count, crf, False)
    yield Line(f"{count} segmenters", "step", chain.seg_step(), of_segmenter * count, cpu, True)
    yield Line("predictions for rounds", "tile", chain.refine_tile(), data.tiles * rounds, cpu, False)
    yield Line(f"{count} maps of all scenes", "Mpx", chain.megapixel(), data.megapixels * count, cpu, False)


def bench(name: str, config: DictConfig, clock: Clock, images: int) -> None:
    """Prints the times of an experiment's stages and the projection for its data set."""
    gpu = clock.device.type == "cuda"
    counts = [1, 8] if gpu else sorted({2, 16, cores()})
    heads = " | ".join(f"{count} {'GPU' if gpu else 'cores'}, h" for count in counts)
    print(f"\n### {name}\n\n| stage | {'s' if gpu else 's of a core'} | units | {heads} |")
    print(f"|---|---:|---:|{'---:|' * len(counts)}")
    sums = np.zeros(len(counts))
    for line in lines(Chain(config, clock, images), config, DATASETS[name], gpu=gpu):
        hours = [line.hours(count, gpu=gpu) for count in counts]
        sums += hours
        cells = " | ".join(f"{hour:,.2f}" for hour in hours)
        print(
            f"| {line.title} | {line.seconds:.3f} a {line.unit} | {line.units:,.0f} | {cells} |", flush=True
        )
    print(f"| weak chain | | | {' | '.join(f'{total:,.2f}' for total in sums)} |", flush=True)


def main() -> None:
    """Parses the command line and runs the benchmark."""
    parser = argparse.ArgumentParser(
        description="Every stage at the published settings, and whole data sets."
    )
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--experiments", nargs="+", default=list(DATASETS), choices=list(DATASETS))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options, changes = parser.parse_known_args()
    clock = Clock(torch.device(options.device), options.steps)
    heading(f"The published chains, {options.steps} times each, on {options.device}")
    for name in options.experiments:
        accelerator = "gpu" if clock.device.type == "cuda" else "cpu"
        config = composed(f"experiment={name}", f"trainer.accelerator={accelerator}", *changes)
        bench(name, config, clock, options.images)
    print(
        f"\nA tile has {PRESENT} classes, and every tile passes the filter. Assumed efficiency of eight GPUs:"
        f"\n100% for tiles and scenes, {EFFICIENCY:.0%} for training steps. If cores compute the CRF, each"
        f"\nGPU has as many cores as this machine ({cores()})."
    )


if __name__ == "__main__":
    main()
