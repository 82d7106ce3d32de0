"""Reads the tensors of a checkpoint file."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import safetensors.torch
import torch
from torch import Tensor

from ome.errors import UserError
from ome.faults import is_no_damage
from ome.progress import console

SUFFIXES = (".pth", ".pt", ".ckpt", ".bin", ".tar", ".safetensors", ".params")
# Prefixes that checkpoints and wrappers put before a network's names; ignored when names are compared.
_WRAPPERS = frozenset({"module", "model", "network", "backbone", "encoder", "state_dict", "net", "_orig_mod"})
_BRANCHES = (
    *("teacher", "student", "encoder_q", "online_encoder", "base_encoder"),
    *("encoder_k", "target_encoder", "momentum_encoder"),
)
"""Names of the networks in a self-supervised training's checkpoint, in order of preference."""


def bare_name(name: str) -> str:
    """Removes wrapper prefixes such as "module." and "backbone." from the name of a tensor."""
    parts = name.split(".")
    while len(parts) > 1 and parts[0] in _WRAPPERS:
        parts = parts[1:]
    return ".".join(parts)


def read_checkpoint(path: Path, option: str = "backbone.weights") -> dict[str, Tensor]:
    """Reads a checkpoint's tensors by name, without unpickling anything but tensors and plain containers.

    Args:
        path: The file.
        option: The setting that names it, for messages.

    Raises:
        UserError: The file does not exist, or contains no tensors that can be read safely.
    """
    if not path.is_file():
        raise UserError(f"weights file does not exist: {path}; type {option}=/path/file.pth")
    if path.suffix == ".params":
        raise UserError(
            f"{path} is an MXNet file; convert it once: "
            f"python scripts/convert_mxnet.py {path} {path.with_suffix('.pth')}"
        )
    try:
        if path.suffix == ".safetensors":
            return dict(safetensors.torch.load_file(path))
        # Mapped, the tensors are read once, into the network; files of old versions of torch cannot be.
        mapped = is_zipfile(path)
        content: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} is not a checkpoint of plain tensors; save its state dict alone: "
            "torch.save(model.state_dict(), 'file.pth')"
        ) from error
    except Exception as error:  # the readers raise many kinds of errors for other files
        if is_no_damage(error):
            raise
        raise UserError(f"{path} is truncated or not a checkpoint; copy or download it again") from error
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    tensors = _of_one_network(_named_tensors(content), path) if isinstance(content, Mapping) else {}
    if not tensors:
        raise UserError(
            f"{path} contains no named tensors; use a file written by torch.save(model.state_dict(), ...)"
        )
    return tensors


def _named_tensors(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors by name, including those in dictionaries of tensors, such as `{"model_ema": {...}}`."""
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    for name, below in content.items():
        if isinstance(below, Mapping):
            tensors |= {f"{name}.{key}": value for key, value in below.items() if isinstance(value, Tensor)}
    return tensors


def _of_one_network(tensors: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Selects the tensors of one network if the file has several, such as a student and a teacher."""
    branches: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        branch, _, rest = bare_name(name).partition(".")
        if branch in _BRANCHES and rest:
            branches.setdefault(branch, {})[rest] = tensor
    if not branches:
        return tensors
    chosen, *others = sorted(branches, key=_BRANCHES.index)
    if others:
        console.print(
            f"[yellow]{path} contains several networks[/]: using {chosen}, not {' or '.join(others)}; to use "
            "another, save a file that has only its tensors"
        )
    return branches[chosen]
