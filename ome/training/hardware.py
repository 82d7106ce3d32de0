"""Devices, processes and precision."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

import torch
from llvmlite.binding import get_host_cpu_features  # type: ignore[import-untyped]
from torch import nn

from ome.distributed.processes import process_cores
from ome.errors import UserError

_MIXED = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
_BF16_INSTRUCTIONS = ("avx512bf16", "amx-bf16", "bf16")
_AMPERE = (8, 0)

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Hardware:
    """Devices, processes and precision of the computations.

    Attributes:
        accelerator: `auto`, `cpu` or `gpu`.
        devices: Number of devices of this machine, with one process each; -1 for every GPU.
        strategy: `auto` for a single process, `ddp` for one per device.
        num_nodes: Number of machines.
        precision: Lightning's name of a precision, `32-true`, `16-mixed` or `bf16-mixed`, or `auto`; see
            `decided_precision`.
        workers: Loader processes for each training process; None lets `loader_processes` choose.
        compile: Whether trainings compile their forward passes, see `Compiling`.
    """

    accelerator: str = "auto"
    devices: int | str = 1
    strategy: str = "auto"
    num_nodes: int = 1
    precision: str = "32-true"
    workers: int | None = None
    compile: bool = False

    @property
    def uses_gpu(self) -> bool:
        """Whether this process computes on a GPU."""
        return self.accelerator in {"gpu", "cuda"} or (
            self.accelerator == "auto" and torch.cuda.is_available()
        )

    def processes(self) -> int:
        """The number of processes to start on this machine.

        Raises:
            UserError: The number is not set, or there is no GPU.
        """
        if isinstance(self.devices, int) and self.devices > 0:
            return self.devices
        if not self.uses_gpu:
            raise UserError(f"trainer.devices={self.devices}: give the number of processes, e.g. 2")
        self.device()
        return torch.cuda.device_count()

    def device(self) -> torch.device:
        """The device of this process for work outside the trainer.

        Raises:
            UserError: A GPU is requested and torch finds none.
        """
        if not self.uses_gpu:
            return torch.device("cpu")
        if not torch.cuda.is_available():
            raise UserError(
                f"trainer.accelerator={self.accelerator}, but torch finds no GPU: type trainer=cpu"
            )
        return torch.device("cuda", torch.cuda.current_device())

    def loader_processes(self) -> int:
        """Loader processes per training process; 0 on a CPU, whose cores the training needs."""
        if self.workers is not None:
            return self.workers
        return min(8, process_cores()) if self.uses_gpu else 0


def decided_precision(precision: str, device: torch.device) -> str:
    """The precision in which a device computes, by Lightning's name.

    `auto` becomes `bf16-mixed` where it is faster, else `32-true`. On a CPU `16-mixed` becomes `bf16-mixed`,
    as in Lightning's trainer.
    """
    if precision == "16-mixed" and device.type == "cpu":
        return "bf16-mixed"
    if precision != "auto":
        return precision
    return "bf16-mixed" if has_bf16(device) else "32-true"


@cache
def has_bf16(device: torch.device) -> bool:
    """Whether a device has instructions for bfloat16, instead of emulating it."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= _AMPERE
    features = get_host_cpu_features()
    return any(features.get(name, False) for name in _BF16_INSTRUCTIONS)


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """A context for Lightning's mixed precisions outside of its trainer; none for `32-true`.

    Args:
        device: The device of the computation.
        precision: See `Hardware`.
    """
    dtype = _MIXED.get(decided_precision(precision, device))
    return torch.autocast(device.type, dtype, enabled=dtype is not None)


def channels_last(network: Network) -> Network:
    """Converts a network to the channels-last memory format.

    Tensor cores and CPUs compute in that format; otherwise each layer would convert its input.
    """
    return network.to(memory_format=torch.channels_last)
