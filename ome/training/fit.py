"""Runs a training to its end, from its last whole epoch if it was interrupted."""

import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.callbacks import Callback, ModelCheckpoint
from pytorch_lightning.loggers import Logger

from ome.distributed.batchnorm import synchronise_batchnorm
from ome.distributed.collectives import any_rank, is_rank_zero, rank_zero_value, world_size
from ome.distributed.processes import RunningProcesses
from ome.distributed.signals import deferred_stop, stop, stop_asked
from ome.errors import UserError
from ome.progress import console
from ome.training.callbacks import History, SeedEachStep, StopAtNan, StopWhenAsked, TrainingMeter
from ome.training.checkpoints import save_network
from ome.training.counters import counted_together
from ome.training.hardware import Hardware, channels_last, decided_precision
from ome.training.kernels import replace_wrong_kernels
from ome.training.scalars import LOG_EVERY

CHECKPOINT = "last"


def fit(
    module: pl.LightningModule,
    data: pl.LightningDataModule,
    *,
    epochs: int,
    total_steps: int,
    folder: Path,
    title: str,
    seed: int,
    hardware: Hardware,
    logger: Logger | None = None,
    callbacks: Sequence[Callback] = (),
    arguments: Mapping[str, Any] | None = None,
) -> None:
    """Trains a module and leaves its submodule `network` as `network.pt`, where `load_network` finds it.

    While it trains, a checkpoint of the last whole epoch lies beside that, or of the step at which it was
    told to stop; a training that was interrupted resumes from there. Several processes train together, with
    the statistics of BatchNorm shared.

    Args:
        module: The module to train; it holds the trained weights afterwards.
        data: Feeds it.
        epochs: Number of epochs.
        total_steps: Optimiser steps of the whole training, for the progress display.
        folder: Receives `network.pt` and `history.csv`.
        title: Name of the training for the progress display and for errors.
        seed: Decides all randomness outside the data.
        hardware: Where to compute.
        logger: Where scalars go beside the history.
        callbacks: More of them.
        arguments: More arguments of `pl.Trainer`, none of those that are set here.

    Raises:
        UserError: The loss became nan, or the requested hardware is not there.
        Stopped: The process was told to stop.
    """
    quieten()
    own_callbacks: Sequence[Callback] = (
        SeedEachStep(seed),
        StopAtNan(title, LOG_EVERY),
        TrainingMeter(title, total_steps, LOG_EVERY),
        History(folder / "history.csv", LOG_EVERY),
        *callbacks,
        # After those whose state it keeps.
        StopWhenAsked(folder / f"{CHECKPOINT}.ckpt", LOG_EVERY),
        ModelCheckpoint(folder, CHECKPOINT, save_top_k=1, every_n_epochs=1, enable_version_counter=False),
    )
    precision, wrong = fitted_precision(module, hardware)
    if wrong:
        console.print(
            f"{wrong} convolutions compute in float32: torch's bfloat16 kernel for them is wrong",
            highlight=False,
        )
    together = world_size() > 1
    if together:
        synchronise_batchnorm(module, hardware.device())
    try:
        trainer = pl.Trainer(
            accelerator=hardware.accelerator,
            devices=[hardware.device().index] if hardware.uses_gpu else 1,
            strategy="ddp" if together else "auto",
            num_nodes=world_size(),
            plugins=[RunningProcesses()] if together else None,
            precision=precision,  # type: ignore[arg-type]  # a string from the configuration
            max_epochs=epochs,
            callbacks=list(own_callbacks),
            logger=logger or False,
            log_every_n_steps=LOG_EVERY,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            **(arguments or {}),
        )
    except (MisconfigurationException, RuntimeError, TypeError, ValueError) as error:
        if arguments:
            pairs = ", ".join(f"{key}={value}" for key, value in arguments.items())
            raise UserError(f"Lightning's Trainer refuses its arguments ({error}): check {pairs}") from error
        raise UserError(
            f"this machine cannot train with accelerator={hardware.accelerator} precision="
            f"{precision} ({error}): choose another trainer=..."
        ) from error
    with deferred_stop(), counted_together(module.get_submodule("network")):
        trainer.fit(module, data, ckpt_path=_checkpoint(folder), weights_only=True)
        if is_rank_zero():
            save_network(module.get_submodule("network"), folder)
            (folder / f"{CHECKPOINT}.ckpt").unlink(missing_ok=True)
        if any_rank(stop_asked()):  # a barrier as well
            stop()


def _checkpoint(folder: Path) -> Path | None:
    """The checkpoint to resume from, if it is there and whole; the leader looks."""
    path, step = folder / f"{CHECKPOINT}.ckpt", 0
    if is_rank_zero() and path.exists():
        try:
            step = torch.load(path, map_location="cpu", weights_only=True)["global_step"]
        except Exception as error:  # noqa: BLE001 - whatever is wrong with it, the training can start again
            console.print(f"[yellow]{path}: checkpoint is corrupt ({type(error).__name__}); starting over[/]")
            path.unlink(missing_ok=True)
        else:
            console.print(f"resuming from step {step} of an interrupted run", highlight=False)
    return path if rank_zero_value(step > 0) else None


def fitted_precision(module: pl.LightningModule, hardware: Hardware) -> tuple[str, int]:
    """Fits a module to the device that will train it.

    Returns:
        The name of the precision, and the number of convolutions that keep float32.
    """
    channels_last(module)
    precision = decided_precision(hardware.precision, hardware.device())
    wrong = replace_wrong_kernels(module) if precision == "bf16-mixed" and not hardware.uses_gpu else 0
    return precision, wrong


def quieten() -> None:
    """Silences what Lightning says about itself; errors still come through."""
    for name in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"pytorch_lightning|lightning_fabric|torchmetrics")
    warnings.filterwarnings("ignore", message=".*lr_scheduler.step.*")
