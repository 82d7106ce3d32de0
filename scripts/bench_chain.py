"""Times every stage at the published settings on made-up tiles, and projects the three data sets from it.

    python scripts/bench_chain.py [--steps 2] [--experiments ome_potsdam ome_vaihingen ome_deepglobe]
                                  [--images 2] [--device cuda] [KEY=VALUE ...]

Networks are those of the experiments, from random weights; tiles are made up and in memory: reading and
varying them, which loader processes do meanwhile, is left out. A step is that of the module which `stage=cam`
or `stage=seg` trains, with its optimiser, in the precision that the trainer takes. On a GPU a step has the
published batch and the time is that of the clock. On a CPU it has `--images` tiles, the time is that of the
process on all its cores (work beside it counts little), and is taken in proportion. Settings that follow
change the experiments: `crf.backend=torch` has the CRF on the GPU.

What is projected is arithmetic: tiles and steps of the published chain times the seconds measured, divided by
cores or GPUs as the last lines say.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import torch
from chain_stages import PRESENT, Chain, Clock
from hydra import compose, initialize_config_module
from measuring import cores, heading
from omegaconf import DictConfig

SHARED: Final = 0.9
"""Part of the time that training steps keep when eight GPUs share their batches: assumed, not measured."""


@dataclass(frozen=True)
class DataSet:
    """Training tiles (all pass the filter, an upper bound), and megapixels of the scenes that are mapped."""

    tiles: int
    megapixels: float


DATASETS: Final = {
    "ome_potsdam": DataSet(23 * 45**2, 14 * 36.0),
    "ome_vaihingen": DataSet(16 * 19 * 15, 17 * 5.0),
    "ome_deepglobe": DataSet(563 * 64, 120 * 2448**2 / 1e6),
}


def composed(experiment: str, changes: list[str], device: torch.device) -> DictConfig:
    """Composes an experiment without its data and weights."""
    trainer = ["trainer.accelerator=gpu" if device.type == "cuda" else "trainer.accelerator=cpu"]
    without = ["dataset.raw=none", "backbone.weights=null", "backbone.encoder_weights=null"]
    with initialize_config_module("ome.conf", version_base="1.3"):
        return compose("config", overrides=[f"experiment={experiment}", *without, *trainer, *changes])


class Line(NamedTuple):
    """A stage: seconds of a unit, how many units, by what, and whether they are steps of a training."""

    title: str
    unit: str
    seconds: float
    units: float
    by_cores: bool
    training: bool

    def hours(self, count: int, *, gpu: bool) -> float:
        """Returns the hours on some cores, or some GPUs with as many cores each as this machine has."""
        if self.by_cores:
            workers: float = count * cores() if gpu else count
        else:
            workers = count * SHARED if self.training and count > 1 else count
        return self.seconds * self.units / workers / 3600


def lines(chain: Chain, config: DictConfig, data: DataSet, *, gpu: bool) -> Iterator[Line]:
    """Measures the stages in their order."""
    settings, recipe, rounds = config.stage.cam, config.segmenter.recipe, config.stage.refine.rounds
    steps, cpu = settings.epochs * -(-data.tiles // settings.batch), not gpu
    crf = cpu or config.crf.backend != "torch"
    count = 1 + rounds
    yield Line("classifier", "step", chain.cam_step(), steps, cpu, True)
    yield Line("multi-scale CAMs", "tile", chain.cam_tile(), data.tiles, cpu, False)
    yield Line("pseudo masks, all rounds", "tile", chain.pseudo_tile(), data.tiles * count, crf, False)
    yield Line(f"{count} segmenters", "step", chain.seg_step(), recipe.steps * count, cpu, True)
    yield Line("predictions for rounds", "tile", chain.refine_tile(), data.tiles * rounds, cpu, False)
    yield Line(f"{count} maps of all scenes", "Mpx", chain.megapixel(), data.megapixels * count, cpu, False)


def bench(name: str, config: DictConfig, clock: Clock, images: int) -> None:
    """Prints the rates of an experiment's stages and what its data set takes."""
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
        bench(name, composed(name, changes, clock.device), clock, options.images)
    print(
        f"\nA tile has {PRESENT} classes; every tile passes the filter. Tiles and scenes are shared without"
        f"\nloss; of training steps, eight GPUs keep {SHARED:.0%}. Where cores do the CRF beside GPUs,"
        f"\neach GPU has as many as this machine ({cores()})."
    )


if __name__ == "__main__":
    main()
