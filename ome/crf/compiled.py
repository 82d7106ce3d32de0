"""Compilation of the kernels by numba, whose cache may be missing, damaged or on a full disk."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numba
from numba.core.caching import FunctionCache


class Cache(FunctionCache):
    """A function's compiled code on disk; where it cannot be read or written, the function is compiled."""

    def load_overload(self, sig: Any, target_context: Any) -> Any:  # noqa: ANN401 - numba's own types
        """The compiled code for a signature; None where there is none, or a power cut has damaged it."""
        try:
            return super().load_overload(sig, target_context)  # type: ignore[no-untyped-call]
        except Exception:  # noqa: BLE001 - unpickling half a file raises all kinds of errors
            with suppress(OSError):
                self.flush()  # type: ignore[no-untyped-call]
            return None

    def save_overload(self, sig: Any, data: Any) -> None:  # noqa: ANN401
        """Saves the compiled code for a signature, if there is room for it."""
        with suppress(OSError):
            super().save_overload(sig, data)  # type: ignore[no-untyped-call]


def compiled(**options: Any) -> Callable[[Callable[..., Any]], Any]:  # noqa: ANN401
    """A decorator that compiles a function at its first call and keeps the code on disk.

    Args:
        **options: Those of `numba.njit`.
    """

    def decorate(function: Callable[..., Any]) -> Any:  # noqa: ANN401
        dispatcher = numba.njit(nogil=True, **options)(function)
        # RuntimeError: neither the package's folder nor the user's cache folder can be written.
        with suppress(RuntimeError):
            # As `cache=True` does, with another class.
            dispatcher._cache = Cache(function)  # type: ignore[no-untyped-call]  # noqa: SLF001
        return dispatcher

    return decorate
