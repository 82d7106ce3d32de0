"""Where scalars go while a training runs."""

import os
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.loggers import CSVLogger, Logger, WandbLogger

from ome.errors import UserError
from ome.progress import console


def logger_for(config: DictConfig, folder: Path, title: str) -> Logger | None:
    """Builds the configured logger for one training.

    Args:
        config: The whole configuration; `config.logger` chooses.
        folder: Receives the logger's files.
        title: What is trained, for the logger's own display.

    Raises:
        UserError: The logger is unknown or not installed.
    """
    kind = config.logger.kind
    if kind == "none":
        return None
    if kind == "csv":
        return CSVLogger(folder, name="")
    if kind == "wandb":
        return _wandb(config, folder, title)
    raise UserError(f"logger.kind={kind} is unknown: choose csv, wandb or none")


def _wandb(config: DictConfig, folder: Path, title: str) -> Logger:
    settings = config.logger
    mode = settings.mode or ("online" if _logged_in() else "offline")
    if mode == "offline":
        console.print(f"wandb: offline; to upload later: wandb sync {folder}/wandb/offline-run-*")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        return WandbLogger(
            name=f"{config.name} {title}",
            save_dir=folder,
            offline=mode == "offline",
            project=settings.project,
            entity=settings.entity,
            group=settings.group or config.name,
            job_type=config.stage.name,
            config=OmegaConf.to_container(config, resolve=True),
        )
    except ModuleNotFoundError as error:
        raise UserError('logger=wandb needs the package wandb: pip install "ome[wandb]"') from error


def _logged_in() -> bool:
    return bool(os.environ.get("WANDB_API_KEY")) or Path("~/.netrc").expanduser().exists()
