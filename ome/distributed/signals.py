"""SIGTERM and SIGINT stop a process as soon as no work is lost."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopped(BaseException):
    """The process was told to stop by a signal; `status` is its exit status, 128 + the signal's number."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.status = 128 + signal_number


class _Stop:
    """State of this process.

    Attributes:
        signal_number: The stop signal that the process has received, if any.
        deferred: Whether the process is in a `deferred_stop` block.
        listening: Whether the process is in a `stopping_on_signals` block.
    """

    signal_number: int | None = None
    deferred = False
    listening = False


def stop_requested() -> bool:
    """Whether the process has received a stop signal."""
    return _Stop.signal_number is not None


@contextmanager
def stopping_on_signals() -> Iterator[None]:
    """Makes SIGTERM and SIGINT raise `Stopped` in the main thread, within the block."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set signal handlers
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    _Stop.signal_number, _Stop.listening = None, True
    install_handlers()
    try:
        yield
    finally:
        _Stop.listening = False
        for number, handler in before.items():
            signal.signal(number, handler)


def install_handlers() -> None:
    """Reinstalls our signal handlers after a library has replaced them."""
    if _Stop.listening:
        for number in SIGNALS:
            signal.signal(number, _handle)


@contextmanager
def deferred_stop() -> Iterator[None]:
    """Defers a stop until the block calls `stop` (see `stop_requested`), or to its end at the latest."""
    _Stop.deferred = True
    try:
        yield
    finally:
        _Stop.deferred = False
    if stop_requested():
        stop()


def stop() -> NoReturn:
    """Raises `Stopped` for the received signal; for SIGTERM if another process has received it."""
    if _Stop.listening:
        for number in SIGNALS:  # a second signal would interrupt the clean-up
            signal.signal(number, signal.SIG_IGN)
    raise Stopped(_Stop.signal_number or signal.SIGTERM)


def _handle(number: int, frame: FrameType | None) -> None:
    del frame
    repeated = number == signal.SIGINT and stop_requested()
    _Stop.signal_number = _Stop.signal_number or number
    if repeated or not _Stop.deferred:
        stop()
