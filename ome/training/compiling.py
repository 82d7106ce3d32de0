"""Compiles the forward passes of a training with torch.compile, where that is right and worth its time."""

import textwrap
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Final

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback
from torch import Tensor, nn

from ome.data.datasets import Batch
from ome.progress import console
from ome.training.clipping import ClippedModule
from ome.training.passes import Context, excess, passes, rounding, tolerance

BACKEND: Final = "inductor"

WORTH: Final = 5_000
"""Least number of steps for each size of image. To compile a size takes about a minute of a core, and saves
little more than the launches of a step's kernels: 632 to 1,227 (docs/benchmarks.md) of about 10 µs."""


Forward = Callable[[Tensor], Any]


def compiled(forward: Forward, device: torch.device, backend: str = BACKEND) -> Forward:
    """Returns a function that compiles itself at the first call with each size of image.

    A call raises an error, of any type, where the forward pass cannot be compiled as a whole.

    Args:
        forward: The forward method of a network for images (B, bands, H, W).
        device: Where it computes: on a GPU, kernels are recorded as CUDA graphs, as by `reduce-overhead`.
        backend: Name of a backend of torch.compile.
    """
    options: dict[str, Any] = {"fullgraph": True, "dynamic": False, "backend": backend}
    if backend == "inductor":
        # Without `fallback_random`, dropout would draw other numbers than in an eager step.
        cuda = device.type == "cuda"
        options["options"] = {"fallback_random": True, "triton.cudagraphs": cuda}
    function: Forward = torch.compile(forward, **options)
    return function


class Compiling(Callback):
    """Compiles the forward passes of a training; validation, checkpoints and the trained network stay eager.

    Before the first step with a new size of image, outputs and gradients are compared with eager ones. If
    they differ by more than rounding, or torch cannot compile the network, the training continues eagerly,
    and is then the same byte by byte as without this callback. So it is with too few steps, see `WORTH`; the
    time of a step is never measured, as a training must be reproducible.

    Args:
        title: Name of the training for messages.
        total_steps: Optimiser steps of the whole training, also where a part of them is resumed.
    """

    def __init__(self, title: str, total_steps: int) -> None:
        self._title = title
        self._steps = total_steps
        self._part: nn.Module | None = None
        self._eager: Forward | None = None
        self._compiled: Forward | None = None
        self._known: set[torch.Size] = set()
        self._seen: set[torch.Size] = set()
        self._sizes = 0
        self._undo = ExitStack()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Batch, *_: object
    ) -> None:
        """Decides before the first step whether to compile, and checks sizes that were not seen before."""
        if not isinstance(pl_module, ClippedModule):
            return
        if self._part is None:
            self._install(pl_module, batch["image"])
        if self._compiled is not None and len(self._known) < self._sizes:
            self._check(pl_module, batch["image"], trainer.precision_plugin.train_step_context)
        if self._compiled is not None and pl_module.device.type == "cuda":
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]

    def on_train_end(self, *_: object) -> None:
        """Removes everything compiled, which on a GPU keeps memory."""
        self._undo.close()

    def on_exception(self, *_: object) -> None:
        """Does the same after an interruption."""
        self.on_train_end()

    def _install(self, module: ClippedModule, image: Tensor) -> None:
        self._part, self._sizes = module.compiled_part, module.sizes(image)
        if self._steps < WORTH * self._sizes:
            each = "" if self._sizes == 1 else f" for each of {self._sizes} sizes of images"
            self._stay_eager(f"its {self._steps} steps are fewer than {WORTH}{each}")
            return
        from torch._dynamo import config  # noqa: PLC0415 - slow to import

        self._eager = self._part.forward
        self._compiled = compiled(self._eager, module.device, BACKEND)
        self._undo.callback(torch.compiler.reset)
        # By default torch stops after eight; a size may be compiled twice, e.g. with other frozen layers.
        self._undo.enter_context(config.patch(recompile_limit=max(8, 2 * self._sizes)))
        # An attribute that hides the method: hooks stay eager, and names in checkpoints as they are.
        self._part.forward = self._forward
        self._undo.callback(vars(self._part).pop, "forward")

    def _forward(self, image: Tensor) -> Any:  # noqa: ANN401 - whatever the network returns
        assert self._part is not None and self._eager is not None  # noqa: S101, PT018 - `_install` sets both
        if self._compiled is None or not (self._part.training and torch.is_grad_enabled()):
            return self._eager(image)
        self._seen.add(image.shape)
        return self._compiled(image)

    def _stay_eager(self, reason: str) -> None:
        self._compiled = None
        self._undo.close()
        console.print(f"{self._title} is not compiled: {reason}", markup=False)

    def _check(self, module: ClippedModule, image: Tensor, context: Context) -> None:
        """Compares the passes of the coming step, if any of them has a new size."""
        assert self._eager is not None  # noqa: S101 - `_install` has set it
        function, self._compiled, self._seen = self._compiled, self._eager, set()
        try:
            eager = passes(module, image, context)
            if self._seen <= self._known:
                self._compiled = function
                return
            self._compiled = None
            half = image[: max(2, len(image) // 2)]  # in float32 as large as the whole batch in 16 bits
            rounded = rounding(module, half, context)
            self._compiled = function
            # On a GPU the first pass prepares, the second records a CUDA graph, the third replays it.
            for _ in range(2 if image.is_cuda else 0):
                passes(module, image, context)
            compiled = passes(module, image, context)
            relative = tolerance(image, context)
            multiple = max(excess(*each, relative) for each in zip(compiled, eager, rounded, strict=True))
        except Exception as error:  # noqa: BLE001 - of torch, Triton or a C++ compiler, or too little memory
            message = textwrap.shorten(str(error), 200, placeholder=" ...")
            self._stay_eager(f"torch.compile fails ({type(error).__name__}: {message})")
            return
        self._known |= self._seen
        if not multiple <= 1:  # also nan
            self._stay_eager(
                f"its outputs or gradients would differ by {multiple:.2g} times what rounding explains"
            )
