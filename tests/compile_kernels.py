"""Compiles the Triton kernels of a CRF for a GPU, without one, and prints their names.

It runs mean field on tensors of the CPU. A kernel is compiled for compute capability 9.0 (H100, H200), with
the arguments of its launch, but not launched.
"""

import sys
from types import SimpleNamespace

import numpy as np
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

from ome.crf import triton_field
from ome.crf.torch_crf import TorchCrf


def compile_only(kernel: JITFunction, *args: object, **options: object) -> None:
    """Stands in for `JITFunction.run`."""
    assert LAUNCH(kernel, *args, **options | {"warmup": True}).asm["cubin"]
    sys.stdout.write(f"{kernel.__name__}\n")


LAUNCH = JITFunction.run

if __name__ == "__main__":
    runs, classes = int(sys.argv[1]), int(sys.argv[2])
    JITFunction.run = compile_only
    triton.runtime.driver.set_active(
        SimpleNamespace(
            get_current_target=lambda: GPUTarget("cuda", 90, 32),
            get_current_device=lambda: 0,
            get_current_stream=int,
        )
    )
    triton_field.INTERPRETED = triton_field.ELEMENTS  # the blocks of a GPU
    crf = TorchCrf(np.zeros((16, 16, 3), np.uint8), engine="triton")
    stack = np.full((classes, 16, 16), 1 / classes, np.float32)
    crf.winners(stack, np.ones((runs, classes), np.float32))
    crf.infer(stack)
