"""Settings that were typed although another setting leaves them without effect."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from omegaconf import DictConfig, OmegaConf

COUNTS_WITH: Final[Mapping[str, tuple[str, tuple[object, ...]]]] = {
    "stage.cam.momentum": ("stage.cam.optimizer", ("sgd",)),
    "stage.cam.power": ("stage.cam.schedule", ("poly",)),
    "segmenter.recipe.momentum": ("segmenter.recipe.optimizer", ("sgd",)),
    "segmenter.recipe.power": ("segmenter.recipe.schedule", ("poly",)),
    "segmenter.recipe.minimum_lr": ("segmenter.recipe.schedule", ("poly", "cosine")),
    "segmenter.recipe.underfit_beta": ("segmenter.recipe.underfit", ("pow", "clamp", "ignore")),
    "segmenter.recipe.underfit_k": ("segmenter.recipe.underfit", ("pow", "clamp", "ignore")),
    "dataset.filter.minimum": ("dataset.tags", (None,)),
    "dataset.filter.overrides": ("dataset.tags", (None,)),
    "stage.labels.drops": ("dataset.tags", (None,)),
    **{
        f"stage.refine.{key}": ("stage.refine.confident", (None,))
        for key in ("cams", "response_scales", "mask", "background", "agreement", "threads")
    },
    "stage.predict.simplify": ("stage.predict.polygons", (True,)),
    "prediction.flip": ("prediction.tta", (None,)),
    **{
        f"logger.{key}": ("logger.kind", ("wandb",))
        for key in ("project", "entity", "group", "mode", "upload")
    },
}
"""Settings by address, and the setting whose values they count with: a table of tags has no areas."""


def idle_settings(config: DictConfig, typed: Sequence[str]) -> Iterator[str]:
    """Yields a line for each setting that has no effect.

    Args:
        config: The composed configuration.
        typed: Addresses of the settings on the command line.
    """
    for key in typed:
        other, values = COUNTS_WITH.get(key, ("", ()))
        if other and (current := OmegaConf.select(config, other)) not in values:
            typed_value, now, *choices = map(_shown, (OmegaConf.select(config, key), current, *values))
            yield (
                f"{key}={typed_value} has no effect with {other}={now}: it counts with "
                f"{other}={', '.join(choices)}"
            )


def _shown(value: object) -> str:
    return "null" if value is None else str(value)
