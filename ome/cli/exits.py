"""How a command ends that is interrupted or whose output cannot be written: without a traceback."""

import os
import select
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn


@contextmanager
def quiet_endings() -> Iterator[None]:
    """Ends the process with at most one line when it is interrupted or when its output cannot be written.

    Imports that take long belong into the block: they may be interrupted too.
    """
    _open_standard_streams()
    interrupted = False

    def interrupt(number: int, frame: FrameType | None) -> NoReturn:
        nonlocal interrupted
        del number, frame
        interrupted = True
        raise KeyboardInterrupt

    # Another handler is not replaced: a shell ignores SIGINT for what it starts in the background.
    is_default = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    try:
        if is_default:
            signal.signal(signal.SIGINT, interrupt)
        with quiet_output():
            yield
    except SystemExit:
        raise
    except BaseException as error:
        if is_default:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        # Libraries wrap an interruption of their import in errors of their own.
        if interrupted or isinstance(error, KeyboardInterrupt):
            _end("interrupted", 128 + signal.SIGINT)
        raise
    finally:
        if is_default:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # else Python's last steps print a traceback


@contextmanager
def quiet_output() -> Iterator[None]:
    """Ends the process when its output cannot be written: in a line, or without one where nobody reads it."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)
        if not poll.poll(0):  # another pipe
            raise
        _end("", 128 + signal.SIGPIPE)
    except OSError as error:
        try:
            os.write(sys.stdout.fileno(), b"\n")
        except OSError:
            _end(f"error: cannot write to the standard output ({error.strerror}): free some space", 1)
        raise  # of another file


def _open_standard_streams() -> None:
    """Opens /dev/null for each closed standard stream: the next file would take its place."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest number that is free
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115 - until the process ends
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115


def _end(line: str, status: int) -> NoReturn:
    """Ends the process with a line on the standard error."""
    with suppress(OSError):
        if line:
            print(line, file=sys.stderr)  # noqa: T201
    with suppress(OSError):
        sys.stdout.flush()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is left is written when Python ends
    sys.exit(status)
