"""Mistakes of the user on the command line, each told in one line."""

import difflib
import sys
from typing import NoReturn

from omegaconf.errors import OmegaConfBaseException
from rich.markup import escape

from ome.progress import console


def fail(line: str, status: int = 1) -> NoReturn:
    """Ends the process with one line that says why.

    Args:
        line: What is wrong, where, and what to type instead.
        status: The exit status.

    Raises:
        SystemExit: Always.
    """
    console.quiet = False  # where this is not the first process, which alone speaks otherwise
    console.print(f"[bold red]error:[/] {escape(line)}", highlight=False)
    sys.exit(status)


def explain(error: Exception) -> str:
    """Puts what Hydra and OmegaConf say about a wrong override into one line."""
    cause = error.__cause__
    if isinstance(cause, OmegaConfBaseException) and cause.parent_node is not None:
        known = [str(key) for key in cause.parent_node]
        near = difflib.get_close_matches(str(cause.key), known, n=1)
        wrong = cause.full_key or cause.key
        hint = f"did you mean {near[0]}?" if near else f"known are: {', '.join(known)}"
        return f"there is no config key {wrong}: {hint}"
    line = " ".join(str(error).split()).partition(" Config search path:")[0]
    if "'hydra/sweeper" in line or "'hydra/launcher" in line:
        line += '; optuna, joblib and submitit come with pip install "ome[sweep]"'
    return line
