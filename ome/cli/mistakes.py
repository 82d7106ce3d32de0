"""All mistakes in the settings of a command line: Hydra stops at the first one."""

import re
from collections.abc import Sequence

from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from ome.cli.errors import explain
from ome.cli.words import is_setting
from ome.config.checks import type_faults
from ome.errors import UserError


def lines_about(words: Sequence[str], error: Exception) -> list[str]:
    """The line of an error, and those of the other settings that are unknown or have a wrong type.

    Settings are looked for without those that were wrong before. Checks across settings are left out, as they
    would miss these.

    Args:
        words: The command line, without the program.
        error: What it ended with.
    """
    lines = explain(error)
    left = [word for word in words if not word.startswith(("hydra.", "hydra/"))]
    if isinstance(error, UserError) or not all(map(is_setting, left)):  # options may add files or jobs
        return lines
    while (fewer := _without_mistake(left, lines[-1])) != left:
        left = fewer
        try:
            GlobalHydra.instance().clear()
            with initialize_config_module("ome.conf", version_base="1.3"):
                faults = dict(type_faults(compose("config", overrides=left)))
        except (UserError, HydraException, OmegaConfBaseException) as another:
            lines += explain(another)
        else:
            typed = set(map(_key, left))
            lines += [line for key, line in faults.items() if key in typed]
            break
    return [*dict.fromkeys(lines)]


def _key(word: str) -> str:
    return word.lstrip("+~").partition("=")[0]


def _without_mistake(words: Sequence[str], line: str) -> list[str]:
    """The words without the one that a line is about, and without those that it decides on."""
    places = {
        key: match.start()
        for key in map(_key, words)
        if (match := re.search(rf"(?<![\w.]){re.escape(key)}(?![\w])", line))
    }
    if not places:
        return [*words]
    wrong = min(places, key=lambda key: (places[key], -len(key)))
    if wrong in {"experiment", "preset", "sweep"}:
        return []  # any other setting may count on it
    return [word for word in words if not f"{_key(word)}.".startswith(f"{wrong}.")]
