"""Small files of a run that a power cut or another program has damaged: one line that names the file."""

import csv
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from ome.errors import UserError

_FAULTS: Final = (
    *(ValueError, TypeError, LookupError, AttributeError, FileNotFoundError),
    *(csv.Error, YAMLError, OmegaConfBaseException),
)
"""What readers of a damaged or missing file raise."""


class DamagedError(UserError):
    """A file is missing, empty, cut off, or not what ome wrote there."""


@contextmanager
def named_if_damaged(path: Path, remedy: str = "run the command that wrote it again") -> Iterator[None]:
    """Turns any error that the content of a file causes into one line.

    Args:
        path: The file that the block reads.
        remedy: What to do.

    Raises:
        DamagedError: The block raised such an error, or a `DamagedError` with another remedy.
    """
    try:
        yield
    except (*_FAULTS, DamagedError) as error:
        what = "is damaged (missing, empty, cut off, or not written by ome)"
        raise DamagedError(f"{path} {what}: {remedy}") from error


def checked_form(value: Any, form: type) -> Any:  # noqa: ANN401 - of a file
    """The value.

    Raises:
        TypeError: It is of another type.
    """
    if not isinstance(value, form):
        raise TypeError(type(value))
    return value


def checked_end(text: str) -> str:
    """The text of a file whose last line is complete.

    Raises:
        ValueError: It is cut off.
    """
    if not text.endswith("\n"):
        raise ValueError
    return text


def read_yaml(path: Path, form: type = dict) -> Any:  # noqa: ANN401 - YAML has no static type
    """Reads a YAML file that Hydra or ome wrote; references such as `${name}` stay as they are.

    Raises:
        DamagedError: It is not YAML of that type, or its last line is cut off.
    """
    with named_if_damaged(path):
        text = checked_end(path.read_text(encoding="utf-8"))
        return checked_form(OmegaConf.to_container(OmegaConf.create(text)), form)


def read_undamaged(paths: Iterable[Path], form: type = dict) -> Iterator[Any]:
    """Yields the content of each YAML file, see `read_yaml`, and leaves out damaged ones."""
    for path in paths:
        with suppress(DamagedError):
            yield read_yaml(path, form)
