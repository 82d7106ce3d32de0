"""Counts the kernels of a training step by part, and times the host that launches them.

    python scripts/bench_step.py [--backbone resnet50] [--precision bf16-mixed] [--classes 5] [--names]
                                 [KEY=VALUE ...]

Steps are those of `fit`, with the default settings, the callbacks of a training, and averaging of the
weights. torch's operators below autograd are counted, on the CPU. Each corresponds to about one GPU kernel
(see `launches.py`), independently of the size of the tiles, which are therefore small here. `waits` are the
operators that would make the host wait until the GPU has finished all earlier kernels.

Nothing here runs on a GPU; `python scripts/bench_training.py` times the steps there.
"""

import argparse
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import pytorch_lightning as pl
import torch
from launches import Launches
from measuring import composed, heading
from pytorch_lightning.callbacks import Callback, WeightAveraging
from torch.utils.data import DataLoader

from ome.config.classifying import classifier_learner
from ome.config.objects import is_frozen
from ome.config.recipes import loss_of
from ome.config.sections import settings_of
from ome.config.segmenting import segmenter_learner
from ome.inference.classifier import build_classifier
from ome.networks.segmenters import build_segmenter
from ome.training.averaging import averaging
from ome.training.fit import fit
from ome.training.hardware import Hardware
from ome.training.recorders import LOG_EVERY

FIRST: Final = 12
"""First of the `LOG_EVERY` steps that are counted; one of them logs, but not for the first time."""

SIDE: Final = 32

PARTS: Final = (
    "forward",
    "losses",
    "backward",
    "clipping",
    "optimiser",
    "averaging",
    "logging",
    "callbacks",
    "rest",
)


class Samples(pl.LightningDataModule):
    """The same batch at every step."""

    def __init__(self, batch: dict[str, torch.Tensor], steps: int) -> None:
        super().__init__()
        self._batch, self._steps = batch, steps

    def train_dataloader(self) -> DataLoader[Any]:
        """Returns the same batch for each step."""
        batches: Any = [self._batch] * self._steps
        return DataLoader(batches, batch_size=None)


class Counting(Callback):
    """Counts the operators of `LOG_EVERY` whole steps."""

    def __init__(self, launches: Launches) -> None:
        self._launches = launches

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Assigns functions to the parts of a step."""
        launches = self._launches
        launches.wrap(pl_module.network, "forward", "forward")
        launches.wrap(pl_module, "training_step", "losses")
        launches.wrap(pl_module, "backward", "backward")
        launches.wrap(pl_module, "configure_gradient_clipping", "clipping")
        for method in ("log", "log_dict"):
            launches.wrap(pl_module, method, "logging")
        launches.wrap(trainer.optimizers[0], "step", "optimiser")
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            part = "averaging" if isinstance(callback, WeightAveraging) else "callbacks"
            launches.wrap(callback, "on_train_batch_end", part)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: object, batch_idx: int
    ) -> None:
        """Begins and ends counting."""
        del pl_module, batch
        if batch_idx == FIRST:
            self._launches.__enter__()  # type: ignore[no-untyped-call]
        if batch_idx == FIRST + LOG_EVERY:
            self._launches.__exit__(None, None, None)  # type: ignore[no-untyped-call]
            trainer.should_stop = True


def modules(changes: Sequence[str], classes: int) -> Iterator[tuple[str, Any]]:
    """Yields names and modules: two classifiers and a segmenter."""
    names = [str(number) for number in range(classes)]
    for name in ("seam", "cam"):
        changed = composed("dataset=potsdam", *changes, f"classifier={name}")
        settings = settings_of(changed, "cam")
        torch.manual_seed(0)
        network = build_classifier(changed.backbone, changed.classifier, classes, 3, None)
        if is_frozen(changed.backbone.freeze, "published"):
            network.freeze()
        yield name, classifier_learner(settings, network, names, classes, 10**6)
    config = composed("dataset=potsdam", *changes)
    torch.manual_seed(0)
    loss = loss_of(config.segmenter, classes, lambda: [1.0] * classes)
    segmenter = build_segmenter(config.segmenter.name, config.segmenter.encoder, classes)
    yield config.segmenter.name, segmenter_learner(config, segmenter, loss, 10**6)


def train(module: pl.LightningModule, classes: int, precision: str, launches: Launches) -> None:
    """Trains until the steps are counted."""
    generator = torch.Generator().manual_seed(0)
    mask = torch.randint(0, classes, (2, SIDE, SIDE), generator=generator)
    batch = {
        "image": torch.randn(2, 3, SIDE, SIDE, generator=generator),
        "tags": torch.ones(2, classes),
        "mask": mask,
        "weight": torch.full_like(mask, 255, dtype=torch.uint8),
    }
    steps = FIRST + LOG_EVERY + 1
    settings: dict[str, Any] = {"epochs": 1, "total_steps": steps, "title": "counted", "seed": 0}
    with tempfile.TemporaryDirectory() as folder:
        fit(
            module,
            Samples(batch, steps),
            folder=Path(folder),
            hardware=Hardware("cpu", precision=precision),
            callbacks=[*averaging(0.05, steps), Counting(launches)],
            **settings,
        )


def main() -> None:
    """Parses the command line and runs the benchmark."""
    parser = argparse.ArgumentParser(description="Kernels of a training step, by part.")
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--precision", default="bf16-mixed")
    parser.add_argument("--classes", type=int, default=5)
    parser.add_argument("--names", action="store_true", help="also the operators of each part")
    options, changes = parser.parse_known_args()
    heading(f"Kernels of a training step, {options.backbone}, {options.precision}, without the data")
    changes = [f"backbone={options.backbone}", *changes]
    counts: dict[str, Launches] = {}
    for name, module in modules(changes, options.classes):
        counts[name] = Launches()
        train(module, options.classes, options.precision, counts[name])
    print(f"| | {' | '.join(counts)} |\n|---|{'---:|' * len(counts)}")
    for part in PARTS:
        print(f"| {part} | {row(count.kernels[part] for count in counts.values())} |")
    print(f"| kernels | {row(count.kernels.total() for count in counts.values())} |")
    print(f"| waits | {row(count.waits.total() for count in counts.values())} |")
    if options.names:
        for name, count in counts.items():
            for kind, numbers in (("kernels", count.names), ("waits", count.waits)):
                print(f"\n{name}, {kind}:")
                for (part, operator), number in sorted(
                    numbers.items(), key=lambda item: (item[0][0], -item[1])
                ):
                    print(f"  {part:<12} {operator:<32} {number / LOG_EVERY:8.1f}")


def row(numbers: Iterable[int]) -> str:
    """The cells of a row: numbers per step, of those counted in `LOG_EVERY` steps."""
    return " | ".join(f"{number / LOG_EVERY:.1f}" for number in numbers)


if __name__ == "__main__":
    main()
