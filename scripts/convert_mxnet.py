"""Converts an MXNet `.params` file, the format of the published ImageNet weights of ResNet38d.

python scripts/convert_mxnet.py ilsvrc-cls_rna-a1_cls1000_ep-0001.params resnet38d.pth
"""

import math
import re
import struct
import sys
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor

from ome.errors import UserError
from ome.files import save_atomically

_LIST_MAGIC: Final = 0x112
_WITH_STORAGE: Final = 0xF993FAC9  # version 2: storage type first, 64-bit dimensions
_WIDE_SHAPE: Final = 0xF993FAC8  # version 1: 64-bit dimensions; before it the number of dimensions came first
_DTYPES: Final = ("<f4", "<f8", "<f2", "u1", "<i4", "i1", "<i8")
_BATCHNORM: Final = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_var": "running_var",
}


class _Reader:
    def __init__(self, content: bytes) -> None:
        self.content = content
        self.position = 0

    def take(self, size: int) -> bytes:
        part = self.content[self.position : self.position + size]
        if len(part) != size:
            raise ValueError("the file ends early")
        self.position += size
        return part

    def integers(self, kind: str, count: int = 1) -> tuple[int, ...]:
        pattern = f"<{count}{kind}"
        return struct.unpack(pattern, self.take(struct.calcsize(pattern)))

    def array(self) -> Tensor:
        (first,) = self.integers("I")
        if first == _WITH_STORAGE and self.integers("i") != (0,):
            raise ValueError("a sparse array")
        wide = first in {_WITH_STORAGE, _WIDE_SHAPE}
        dimensions = self.integers("I")[0] if wide else first
        if not 0 < dimensions <= 8:
            raise ValueError(f"an array of {dimensions} dimensions")
        shape = self.integers("Q" if wide else "I", dimensions)
        _device_type, _device, kind = self.integers("i", 3)
        if not 0 <= kind < len(_DTYPES):
            raise ValueError(f"element type {kind}")
        dtype = np.dtype(_DTYPES[kind])
        values = np.frombuffer(self.take(math.prod(shape) * dtype.itemsize), dtype)
        return torch.from_numpy(values.reshape(shape).copy())


def read_params(path: Path) -> dict[str, Tensor]:
    """Reads the named arrays of an MXNet NDArray list file (dense arrays, every version of the format).

    Raises:
        UserError: The file is truncated or of another format.
    """
    reader = _Reader(path.read_bytes())
    try:
        if reader.integers("Q", 2)[0] != _LIST_MAGIC:
            raise ValueError("another format")  # noqa: TRY301 - one message for all kinds of invalid files
        arrays = [reader.array() for _ in range(reader.integers("Q")[0])]
        names = [reader.take(reader.integers("Q")[0]).decode() for _ in range(reader.integers("Q")[0])]
        return dict(zip(names, arrays, strict=True))
    except ValueError as error:
        raise UserError(f"{path} is truncated or not an MXNet .params file: {error}") from error


def resnet38d_name(name: str) -> str | None:
    """Translates the name of an array of the published A1 model to ours; None for its classifier.

    Args:
        name: A name such as "arg:res4b2_branch2a_weight" or "aux:bn7_moving_var".

    Returns:
        A name such as "b4_2.conv_branch2a.weight" or "bn7.running_var".
    """
    plain = name.partition(":")[2] or name
    if plain == "conv1a_weight":
        return "conv1a.weight"
    suffix = next((end for end in _BATCHNORM if plain.endswith(f"_{end}")), None)
    if plain.startswith("bn7_") and suffix:
        return f"bn7.{_BATCHNORM[suffix]}"
    match = re.match(r"(res|bn)(\d)(?:a|b(\d+))_(branch\w+?)_", plain)
    if match is None:
        return None
    kind, stage, index, branch = match.groups()
    block = f"b{stage}_{index}" if index else f"b{stage}"
    if kind == "res":
        return f"{block}.conv_{branch}.weight"
    return f"{block}.bn_{branch}.{_BATCHNORM[suffix]}" if suffix else None


def read_resnet38d(path: Path) -> dict[str, Tensor]:
    """Reads the ImageNet weights of ResNet38d by our names; those of its classifier are not translated.

    Raises:
        UserError: The file is truncated or of another format.
    """
    return {resnet38d_name(name) or name: tensor for name, tensor in read_params(path).items()}


def main(arguments: list[str]) -> int:
    """Converts the first file to the second; returns the exit status, 0 for success."""
    if len(arguments) != 2:
        print(__doc__)
        return 2
    source, target = map(Path, arguments)
    try:
        tensors = read_resnet38d(source)
    except (UserError, OSError) as error:
        print(f"error: {error}")
        return 1
    save_atomically(target, lambda path: torch.save(tensors, path))
    print(f"{len(tensors)} tensors -> {target}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
