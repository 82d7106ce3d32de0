"""Weakly supervised land-cover mapping: from image-level tags to scored, georeferenced maps."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ome.api import Prediction, map_scene, predict
    from ome.crf.arrays import dense_crf
    from ome.pseudo.arrays import pseudo_label

__version__ = "0.1.0"
__all__ = ["Prediction", "dense_crf", "map_scene", "predict", "pseudo_label"]

_MODULES = {"dense_crf": "ome.crf.arrays", "pseudo_label": "ome.pseudo.arrays"}


def __dir__() -> list[str]:
    return [*__all__, "__version__", "crf"]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - any public object
    """Imports the objects of `__all__` on access, since importing torch takes seconds."""
    if name == "crf":
        return import_module("ome.crf")
    if name not in __all__:
        raise AttributeError(f"module 'ome' has no attribute {name!r}")
    return getattr(import_module(_MODULES.get(name, "ome.api")), name)
