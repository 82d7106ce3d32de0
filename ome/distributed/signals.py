"""SIGTERM and SIGINT: processes stop at the next moment at which no work is lost."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopped(BaseException):
    """The process was asked to stop; `status` is the exit status that says so."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.status = 128 + signal_number


class _Stop:
    """The stop signal that this process has received, if any."""

    asked: int | None = None
    deferred = False
    listening = False


def stop_asked() -> bool:
    """Whether a signal waits for the end of a `deferred_stop` block."""
    return _Stop.asked is not None


@contextmanager
def stopping_on_signals() -> Iterator[None]:
    """Turns SIGTERM and SIGINT within the block into `Stopped`, raised in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are none of this thread's business
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    _Stop.asked, _Stop.listening = None, True
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
    """Lets the block choose its moment: it asks `stop_asked` and calls `stop`; its end does at the latest."""
    _Stop.deferred = True
    try:
        yield
    finally:
        _Stop.deferred = False
    if stop_asked():
        stop()


def stop() -> NoReturn:
    """Raises `Stopped` for the signal that came; for SIGTERM where it came to another process."""
    if _Stop.listening:
        for number in SIGNALS:  # once is enough: a second one would interrupt the cleaning up
            signal.signal(number, signal.SIG_IGN)
    raise Stopped(_Stop.asked or signal.SIGTERM)


def _handle(number: int, frame: FrameType | None) -> None:
    del frame
    impatient = number == signal.SIGINT and stop_asked()
    _Stop.asked = _Stop.asked or number
    if impatient or not _Stop.deferred:
        stop()
