"""Weakly supervised land-cover mapping: from image-level tags to scored, georeferenced maps."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ome.api import Prediction, map_scene, predict

__version__ = "0.1.0"
__all__ = ["Prediction", "map_scene", "predict"]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever is asked for
    """Finds what `__all__` names in `ome.api`, which takes torch seconds to import."""
    if name not in __all__:
        raise AttributeError(f"module 'ome' has no attribute {name!r}")
    from ome import api  # noqa: PLC0415

    return getattr(api, name)
