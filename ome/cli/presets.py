"""The default preset of a command line without one."""

import shutil
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from hydra import compose, initialize_config_module
from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ome.cli.commands import quoted
from ome.data.sheets import read_sheet
from ome.errors import UserError

_DECIDED: Final = ("preset=", "experiment=")

FEW: Final = 100
"""Tagged images up to which `preset=few` fits."""


def fitting_preset(words: Sequence[str]) -> list[str]:
    """Gives `preset=few` for few tagged images, `preset=laptop` for a machine without a GPU, or nothing.

    Args:
        words: The command line after `check_words`; nothing is added where it has a preset or an experiment,
            or no setting.
    """
    if any(word.startswith(_DECIDED) for word in words) or not any("=" in word for word in words):
        return []
    table, on_gpu = None, bool(gpus())
    # Composing takes a quarter of a second; other settings decide nothing here.
    if on_gpu or any("dataset.tags" in word or word.startswith("-") for word in words):
        with suppress(HydraException, OmegaConfBaseException):  # explained when Hydra composes the run
            config = composed(words)
            on_gpu = on_gpu and OmegaConf.select(config, "trainer.accelerator") != "cpu"
            table = OmegaConf.select(config, "dataset.tags")
    if isinstance(table, str) and _is_short(Path(table)):
        return ["preset=few"]
    return [] if on_gpu else ["preset=laptop"]


def composed(words: Sequence[str]) -> DictConfig:
    """The configuration of a command, or of the first job of a sweep.

    Args:
        words: The command line after `check_words`, options before settings.
    """
    options = get_args_parser().parse_args([*words])
    typed = OverridesParser.create().parse_overrides(options.overrides)
    settings = [str(one.input_line) for one in typed if not one.is_sweep_override()]
    swept = [one for one in typed if one.is_discrete_sweep()]
    first = [(one.get_key_element(), next(one.sweep_string_iterator(), None)) for one in swept]
    settings += [f"{key}={value}" for key, value in first if value is not None]
    if options.config_dir and Path(options.config_dir).is_dir():
        settings.append(f"hydra.searchpath=[{quoted(f'file://{Path(options.config_dir).absolute()}')}]")
    with initialize_config_module("ome.conf", version_base="1.3"):
        return compose(options.config_name or "config", overrides=settings)


def _is_short(table: Path) -> bool:
    try:
        return len(read_sheet(table).rows) <= FEW
    except UserError:
        return False  # the stage that reads it says why


def gpus() -> str:
    """Names and memory of the NVIDIA GPUs, from the driver: importing torch would take seconds."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return ""
    query = [command, "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, check=True, timeout=10)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return ""
    return "; ".join(answer.stdout.split("\n")).strip("; ")
