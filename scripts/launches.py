"""Counts the operators of a training step, and those that make the host wait for a GPU, on any device."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from typing import Any, Final

import torch
from torch.utils._python_dispatch import TorchDispatchMode

_NO_KERNEL: Final = frozenset(
    {
        *("detach", "_unsafe_view", "empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"),
        *("promote_types", "_record_function_enter_new", "_record_function_exit"),
    }
)
"""Operators that compute nothing, in addition to views."""

_WAITING: Final = frozenset({"_local_scalar_dense", "nonzero", "masked_select", "lift_fresh", "equal"})
"""Operators that make the host wait for a GPU: they read numbers from or (`lift_fresh`) copy them to it."""


class Launches(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A context in which operators are counted by the innermost part of the step that calls them.

    An operator corresponds to about one GPU kernel; the backward pass of a convolution has two or three, a
    `foreach` or fused operator has one for dozens of tensors. The backward pass must run in the same thread,
    as it does on a CPU.

    Attributes:
        kernels: Operators that compute something, by part.
        waits: Operators that would make the host wait for a GPU, by part and name.
        names: Operators that compute something, by part and name.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.kernels: Counter[str] = Counter()
        self.names: Counter[tuple[str, str]] = Counter()
        self.waits: Counter[tuple[str, str]] = Counter()
        self._parts = ["rest"]

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401 - fixed by torch
        types: Any,  # noqa: ANN401
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        """Counts an operator and calls it."""
        del types
        name, part = func.overloadpacket.__name__, self._parts[-1]
        if name in _WAITING or (name in {"index", "index_put_"} and _by_mask(args[1])):
            self.waits[part, name] += 1
        elif not func.is_view and name not in _NO_KERNEL:
            self.kernels[part] += 1
            self.names[part, name] += 1
        return func(*args, **(kwargs or {}))

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Counts operators within the block as one part."""
        self._parts.append(name)
        try:
            yield
        finally:
            self._parts.pop()

    def wrap(self, owner: object, method: str, part: str) -> None:
        """Counts operators that a method of an object calls as one part."""
        original: Callable[..., Any] = getattr(owner, method)

        @wraps(original)
        def counted(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            with self.part(part):
                return original(*args, **kwargs)

        object.__setattr__(owner, method, counted)


def _by_mask(indices: Any) -> bool:  # noqa: ANN401
    return any(index is not None and index.dtype in {torch.bool, torch.uint8} for index in indices)
