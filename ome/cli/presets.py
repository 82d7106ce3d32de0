"""The preset that a command takes where none is typed."""

import shutil
import subprocess
from collections.abc import Sequence

_DECIDED = ("preset=", "experiment=")
_ON_THE_CPU = ("trainer=cpu", "trainer=ddp_cpu", "trainer.accelerator=cpu")


def fitting_preset(words: Sequence[str]) -> list[str]:
    """Gives `preset=laptop` for a machine without a GPU, or nothing.

    Args:
        words: The command line. A preset, an experiment and a word that is no setting keep it as it is.
    """
    if any(word.startswith(_DECIDED) for word in words) or not any("=" in word for word in words):
        return []
    return ["preset=laptop"] if any(word in _ON_THE_CPU for word in words) or not gpus() else []


def gpus() -> str:
    """Names and memory of the NVIDIA GPUs, from the driver: torch would take seconds to say the same."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return ""
    query = [command, "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, check=True, timeout=10)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return ""
    return "; ".join(answer.stdout.split("\n")).strip("; ")
