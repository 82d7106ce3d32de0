"""What is told of a finished stage, by the configured logger."""

from omegaconf import DictConfig, OmegaConf

from ome.pipeline.stage import OnFinish


def stage_tracker(config: DictConfig) -> OnFinish | None:
    """What `execute` calls after a stage: W&B shows stages, the other loggers trainings alone."""
    if OmegaConf.select(config, "logger.kind") != "wandb":
        return None
    from ome.tracking.weights_and_biases import show_stage  # noqa: PLC0415 - Lightning's loggers take seconds

    return show_stage
