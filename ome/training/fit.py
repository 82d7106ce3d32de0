"""Runs a training, and resumes it from its last checkpoint if it was interrupted."""

import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import Logger
from torch import nn

from ome.distributed.batchnorm import synchronise_batchnorm
from ome.distributed.collectives import any_rank, is_rank_zero, rank_zero_value, world_size
from ome.distributed.processes import RunningProcesses
from ome.distributed.signals import deferred_stop, stop, stop_requested
from ome.errors import UserError
from ome.faults import is_no_damage
from ome.files import noted
from ome.memory import returned_memory
from ome.pipeline.layout import HISTORY
from ome.progress import console
from ome.training.callbacks import LastCheckpoint, SeedEachStep, StopAtNan, StopWhenAsked
from ome.training.checkpoints import save_network
from ome.training.compiling import Compiling
from ome.training.counters import counted_together
from ome.training.depthwise import speed_up_depthwise
from ome.training.hardware import Hardware, channels_last, decided_precision
from ome.training.kernels import replace_unsafe_strides, replace_wrong_kernels
from ome.training.monitors import check_monitor
from ome.training.recorders import LOG_EVERY, History, TrainingMeter

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
    """Trains a module and writes its submodule `network` as `network.pt`, for `load_network`.

    During training the folder holds a checkpoint of the last complete epoch, or of the step at which a signal
    stopped the training; an interrupted training resumes from it. Several processes train together and share
    the statistics of BatchNorm.

    Args:
        module: The module to train; it holds the trained weights afterwards.
        data: Its data module.
        epochs: Number of epochs.
        total_steps: Optimiser steps of the whole training, for the progress display.
        folder: Output folder of `network.pt` and `history.csv`.
        title: Name of the training for the progress display and error messages.
        seed: Determines all randomness outside the data.
        hardware: Devices, precision, and whether to compile.
        logger: Logger for scalars, in addition to the history.
        callbacks: Further callbacks.
        arguments: Further arguments of `pl.Trainer`, except those that are set here.

    Raises:
        UserError: The loss became nan, the requested hardware does not exist, or a callback monitors a score
            that the module does not log.
        Stopped: The process received SIGTERM or SIGINT.
    """
    quieten()
    noted(folder / f"{CHECKPOINT}.ckpt")
    all_callbacks = [
        SeedEachStep(seed),
        *([Compiling(title, total_steps)] if hardware.compile else ()),
        StopAtNan(title),
        TrainingMeter(title, total_steps),
        History(folder / HISTORY),
        *callbacks,
        # After the callbacks whose state it saves.
        StopWhenAsked(folder / f"{CHECKPOINT}.ckpt"),
        LastCheckpoint(folder, CHECKPOINT, save_top_k=1, every_n_epochs=1, enable_version_counter=False),
    ]
    precision, wrong = fitted_precision(module, hardware)
    if wrong:
        console.print(
            f"{wrong} convolutions run in float32, because torch {torch.__version__} computes their "
            "gradients wrongly in bfloat16 on this machine: nothing to do"
        )
    together = world_size() > 1
    if together:
        synchronise_batchnorm(module, hardware.device())
    try:
        trainer = pl.Trainer(
            # Lightning's `auto` may choose devices that the rest of ome does not use, such as Apple's.
            accelerator="cuda" if hardware.uses_gpu else "cpu",
            devices=[hardware.device().index] if hardware.uses_gpu else 1,
            strategy="ddp" if together else "auto",
            num_nodes=world_size(),
            plugins=[RunningProcesses()] if together else None,
            precision=precision,  # type: ignore[arg-type]  # a string from the configuration
            max_epochs=epochs,
            callbacks=all_callbacks,
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
    with deferred_stop(), returned_memory(), counted_together(module.get_submodule("network")):
        try:
            trainer.fit(module, data, ckpt_path=_checkpoint(folder), weights_only=True)
        except (MisconfigurationException, RuntimeError, ValueError) as error:
            _explain(error, title, folder, callbacks, trainer)
            raise
        if is_rank_zero():
            save_network(module.get_submodule("network"), folder)
            (folder / f"{CHECKPOINT}.ckpt").unlink(missing_ok=True)
        if any_rank(stop_requested()):  # also a barrier
            stop()


def _explain(
    error: Exception, title: str, folder: Path, callbacks: Sequence[Callback], trainer: pl.Trainer
) -> None:
    """Raises a UserError if a callback, or a checkpoint of another version, explains an error."""
    for callback in callbacks:
        if str(getattr(callback, "monitor", None)) in str(error):
            check_monitor(title, callback, trainer.callback_metrics)
    if "parameter group" in str(error):
        raise UserError(
            f"{folder / CHECKPOINT}.ckpt is of another version of ome: delete it, and the same command "
            "starts this training anew"
        ) from error


def _checkpoint(folder: Path) -> Path | None:
    """The checkpoint to resume from, if it exists and is readable; decided by rank 0."""
    path, step = folder / f"{CHECKPOINT}.ckpt", 0
    if is_rank_zero() and path.exists():
        try:
            step = torch.load(path, map_location="cpu", weights_only=True)["global_step"]
        except Exception as error:  # with any damage the training starts over
            if is_no_damage(error):
                raise
            console.print(f"[yellow]{path}: checkpoint is corrupt ({type(error).__name__}); starting over[/]")
            path.unlink(missing_ok=True)
        else:
            console.print(f"resuming from step {step} of an interrupted run")
    return path if rank_zero_value(step > 0) else None


def fitted_precision(module: nn.Module, hardware: Hardware) -> tuple[str, int]:
    """Prepares a module for the device that will train it.

    Returns:
        The name of the precision, and the number of convolutions that keep float32.
    """
    channels_last(module)
    precision = decided_precision(hardware.precision, hardware.device())
    if hardware.uses_gpu:
        return precision, 0
    speed_up_depthwise(module)
    replace_unsafe_strides(module)
    return precision, replace_wrong_kernels(module) if precision == "bf16-mixed" else 0


def quieten() -> None:
    """Silences Lightning's messages and warnings, except errors."""
    for name in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"pytorch_lightning|lightning_fabric|torchmetrics")
    warnings.filterwarnings("ignore", message=".*lr_scheduler.step.*")
