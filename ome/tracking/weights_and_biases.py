"""Weights & Biases: one W&B run per training, and one per stage with its results.

An error of the network does not end a training: a W&B run that cannot be opened online is stored offline, and
a stage is finished even if it cannot be shown.
"""

import netrc
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse

import wandb
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.loggers import Logger, WandbLogger

from ome.distributed.collectives import is_rank_zero
from ome.errors import UserError
from ome.pipeline.artifacts import Artefact
from ome.pipeline.manifest import NAME as MANIFEST
from ome.pipeline.manifest import versions
from ome.progress import console, say_once
from ome.tracking.wandb_content import numbers, pictures, tables

if TYPE_CHECKING:
    from wandb import Artifact, Run

SECONDS_TO_OPEN = 30.0
SECONDS_TO_CLOSE = 120.0
"""After this time, the remaining data stays on disk for `wandb sync`."""

_unreachable: list[str] = []
"""The error of the first failed connection; after it, no other connection is tried."""


@contextmanager
def training_logger(config: DictConfig, title: str) -> Iterator[Logger]:
    """A Lightning logger with a W&B run for this training only, which ends with the block.

    Args:
        config: The whole configuration, with the stage's settings under `stage`.
        title: Name of the training.
    """
    if not is_rank_zero():
        yield WandbLogger(offline=True)  # Lightning replaces it by one that does nothing
        return
    with _open(config, title) as run:
        run.define_metric("trainer/global_step")
        run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
        yield WandbLogger(experiment=run)


def show_stage(config: DictConfig, finished: Artefact, inputs: Mapping[str, Artefact]) -> None:
    """Shows a finished stage as a W&B run with its counts, scores, tables, pictures and inputs.

    Args:
        config: The whole configuration, with the stage's settings under `stage`.
        finished: The finished stage.
        inputs: The finished stages that it read, by name.
    """
    manifest = finished.manifest
    try:
        with _open(config, manifest.stage) as run:
            run.summary.update({"seconds": manifest.seconds, **numbers(manifest.counts)})
            run.log(tables(finished.folder) | pictures(finished))
            for artefact in inputs.values():
                _use(run, _lineage(artefact, upload=False))
            run.log_artifact(_lineage(finished, upload=config.logger.upload))
    except UserError:
        raise
    except Exception as error:  # noqa: BLE001 - no error changes that the stage is finished
        console.print(f"[yellow]wandb: cannot show stage {manifest.stage}[/]: {error}")


@contextmanager
def _open(config: DictConfig, title: str) -> Iterator["Run"]:
    settings, folder = config.logger, Path(config.run_dir)
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    plain: dict[str, Any] = OmegaConf.to_container(  # type: ignore[assignment]
        config, resolve=not OmegaConf.is_missing(config.dataset, "raw")
    )

    def start(mode: str) -> "Run":
        return wandb.init(
            project=settings.project,
            entity=settings.entity,
            group=settings.group or config.name,
            job_type=config.stage.name,
            name=f"{folder.name} {title}",
            dir=(folder / "logs").resolve(),  # wandb's own process may work elsewhere
            config=plain | {"versions": versions()},
            mode=mode,  # type: ignore[arg-type]  # checked by wandb
            reinit="finish_previous",
            settings=wandb.Settings(
                silent=True,  # this module prints what is important
                console="off",
                init_timeout=SECONDS_TO_OPEN,
                finish_timeout=SECONDS_TO_CLOSE,
            ),
        )

    mode = settings.mode or os.environ.get("WANDB_MODE") or ("online" if _logged_in() else "offline")
    if mode == "online" and not _unreachable:
        try:
            run = start("online")
        except wandb.Error as error:
            _unreachable.append(" ".join(str(error).split()))
    if mode == "online" and _unreachable:
        mode = "offline"
        say_once(f"wandb: {_unreachable[0]}")
    if mode != "online":
        run = start(mode)
    if mode == "offline":
        place = f"{quote(str(folder))}/logs/wandb/offline-run-*"
        say_once(f"wandb: offline; to upload later: wandb sync {place}", "none")
    elif run.url:
        say_once(f"wandb: {run.url}", "none")
    try:
        yield run
    except BaseException:
        run.finish(exit_code=1)  # `with run` would print a traceback, also where a signal stops the command
        raise
    run.finish()


def _logged_in() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(wandb.setup().settings.base_url).hostname or ""
    try:
        return netrc.netrc().authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def _lineage(finished: Artefact, *, upload: bool) -> "Artifact":
    """A finished stage as a W&B artifact: its files if `upload`, else the path of its manifest."""
    manifest = finished.manifest
    folder = finished.folder.resolve()
    run = folder.name if manifest.stage == "prepare" else folder.parent.name
    metadata = {"folder": str(folder), "fingerprint": manifest.fingerprint, "inputs": manifest.inputs}
    # Names of a sweep's folders have characters that are not allowed in an artifact's name.
    name = re.sub(r"[^a-zA-Z0-9_.-]", "-", f"{run}-{manifest.stage}")[-128:]
    artifact = wandb.Artifact(name, manifest.stage, metadata=metadata)
    if upload:
        artifact.add_dir(str(folder))
    else:
        artifact.add_reference(f"file://{folder / MANIFEST}")
    return artifact


def _use(run: "Run", artifact: "Artifact") -> None:
    """Records that the W&B run read an artifact; `use_artifact` needs the server."""
    if run.offline:
        run._log_artifact(artifact, is_user_created=True, use_after_commit=True)  # noqa: SLF001
    else:
        run.use_artifact(artifact)
