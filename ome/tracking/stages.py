"""Reports finished stages to the configured logger."""

from omegaconf import DictConfig, OmegaConf

from ome.pipeline.stage import OnFinish


def stage_tracker(config: DictConfig) -> OnFinish | None:
    """The function that `execute` calls after each stage; None for loggers that only show trainings."""
    if OmegaConf.select(config, "logger.kind") != "wandb":
        return None
    from ome.tracking.weights_and_biases import show_stage  # noqa: PLC0415 - Lightning's loggers take seconds

    return show_stage
