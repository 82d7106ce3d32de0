"""Compilation of the kernels by numba, whose cache may be missing, damaged or on a full disk."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numba
from numba.core.caching import FunctionCache, NullCache

from ome.progress import say_once


def _say_uncached(reason: object = "") -> None:
    """Says once a process that its kernels are compiled for it alone."""
    say_once(
        "the numba kernels are compiled at every start, which takes up to a minute: their cache cannot "
        f"be written{f' ({reason})' if reason else ''}; set NUMBA_CACHE_DIR to a folder that can"
    )


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
        try:
            super().save_overload(sig, data)  # type: ignore[no-untyped-call]
        except OSError as error:
            _say_uncached(error.strerror)


class NoCache(NullCache):
    """No cache on disk, which is said when a function is compiled."""

    def save_overload(self, sig: Any, data: Any) -> None:  # noqa: ANN401
        """Says it."""
        del sig, data
        _say_uncached()


def compiled(**options: Any) -> Callable[[Callable[..., Any]], Any]:  # noqa: ANN401
    """A decorator that compiles a function at its first call and keeps the code on disk.

    Args:
        **options: Those of `numba.njit`.
    """

    def decorate(function: Callable[..., Any]) -> Any:  # noqa: ANN401
        dispatcher = numba.njit(nogil=True, **options)(function)
        try:  # as `cache=True` does, with another class
            dispatcher._cache = Cache(function)  # type: ignore[no-untyped-call]  # noqa: SLF001
        except RuntimeError:  # neither the package's folder nor the user's cache folder can be written
            dispatcher._cache = NoCache()  # noqa: SLF001
        return dispatcher

    return decorate
