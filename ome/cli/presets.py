"""The default preset of a command line without one."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from ome.errors import UserError

_DECIDED = ("preset=", "experiment=")
_ON_THE_CPU = ("trainer=cpu", "trainer=ddp_cpu", "trainer.accelerator=cpu")

_TABLE = "dataset.tags="

FEW: Final = 100
"""Tagged images up to which `preset=few` fits."""


def fitting_preset(words: Sequence[str]) -> list[str]:
    """Gives `preset=few` for few tagged images, `preset=laptop` for a machine without a GPU, or nothing.

    Args:
        words: The command line; nothing is added where it has a preset or an experiment, or no setting.
    """
    if any(word.startswith(_DECIDED) for word in words) or not any("=" in word for word in words):
        return []
    tables = [Path(word.removeprefix(_TABLE).strip("'\"")) for word in words if word.startswith(_TABLE)]
    if any(_is_short(table) for table in tables):
        return ["preset=few"]
    return ["preset=laptop"] if any(word in _ON_THE_CPU for word in words) or not gpus() else []


def _is_short(table: Path) -> bool:
    from ome.data.sheets import read_sheet  # noqa: PLC0415 - takes half a second

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
