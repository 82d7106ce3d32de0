"""The fully connected CRF on a shared permutohedral lattice, on a CPU or a GPU.

The package can be called: `ome.crf(image, probabilities)` is `ome.dense_crf(image, probabilities)`.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import Any


class _CallablePackage(ModuleType):
    def __call__(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401
        """See `ome.dense_crf`."""
        return import_module("ome.crf.arrays").dense_crf(*args, **options)


sys.modules[__name__].__class__ = _CallablePackage
