"""Weights & Biases: one W&B run per training, and one per stage with its results.

An error of the network does not end a training: a W&B run that cannot be opened online is stored offline, and
a stage is finished even if it cannot be shown.
"""

import netrc
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse

import wandb
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from pytorch_lightning.loggers import Logger, WandbLogger

from ome.distributed.collectives import is_rank_zero
from ome.errors import UserError
from ome.files import read_csv
from ome.pipeline.artifacts import Artefact
from ome.pipeline.manifest import NAME as MANIFEST
from ome.pipeline.manifest import versions
from ome.plots.figures import DPI, confusion_figure
from ome.progress import console
from ome.scoring.rows import Row, read_rows

if TYPE_CHECKING:
    from wandb import Artifact, Run, Table
    from wandb import Image as WandbImage

SECONDS_TO_OPEN = 30.0
SECONDS_TO_CLOSE = 120.0
"""After this time, the remaining data stays on disk for `wandb sync`."""

LONGEST_TABLE = 500
"""Maximum number of rows of a table that is shown, so that lists of all tiles are not."""

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
            run.summary.update({"seconds": manifest.seconds, **_numbers(manifest.counts)})
            run.log(_tables(finished.folder) | _pictures(finished))
            for artefact in inputs.values():
                _use(run, _lineage(artefact, upload=False))
            run.log_artifact(_lineage(finished, upload=config.logger.upload))
    except UserError:
        raise
    except Exception as error:  # noqa: BLE001 - no error changes that the stage is finished
        console.print(f"[yellow]wandb: cannot show stage {manifest.stage}[/]: {error}", highlight=False)


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
        _print_once(f"[yellow]wandb: {_unreachable[0]}[/]")
    if mode != "online":
        run = start(mode)
    if mode == "offline":
        _print_once(f"wandb: offline; to upload later: wandb sync {folder}/logs/wandb/offline-run-*")
    elif run.url:
        _print_once(f"wandb: {run.url}")
    with run:  # finishes it, as failed where the block raises
        yield run


@cache
def _print_once(line: str) -> None:
    """Prints a line, but not a second time for another W&B run."""
    console.print(line, highlight=False)


def _logged_in() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(wandb.setup().settings.base_url).hostname or ""
    try:
        return netrc.netrc().authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def _numbers(counts: Mapping[str, Any]) -> dict[str, float]:
    """The counts of a manifest that are numbers, on one level."""
    numbers: dict[str, float] = {}
    for name, value in counts.items():
        if isinstance(value, Mapping):
            numbers |= {f"{name}.{key}": number for key, number in _numbers(value).items()}
        elif isinstance(value, int | float):
            numbers[name] = value
    return numbers


def _tables(folder: Path) -> dict[str, Any]:
    """Scores, confusion matrices as tables and as pictures, and the stage's short CSV files."""
    shown: dict[str, Any] = {}
    if rows := read_rows(folder):
        header: list[str | int] = ["scored", "on", "mIoU", "mF1", "OA", *rows[0].scores.names]
        shown["scores"] = wandb.Table(columns=header, data=[_score_line(row) for row in rows])
        shown |= {f"mIoU/{row.name}": row.scores.miou for row in rows}
        shown |= {f"confusion/{row.name}": _confusion(row) for row in rows}
        shown |= {f"pictures/confusion/{row.name}": _confusion_picture(row) for row in rows}
    for path in sorted(folder.glob("*.csv")):
        lines = read_csv(path)
        if 0 < len(lines) <= LONGEST_TABLE:
            data = [list(line.values()) for line in lines]
            shown[path.stem] = wandb.Table(columns=list(lines[0]), data=data)
    return shown


def _score_line(row: Row) -> list[Any]:
    scores = row.scores
    return [row.name, row.where, scores.miou, scores.mf1, scores.oa, *map(float, scores.iou)]


def _confusion(row: Row) -> "Table":
    names = row.scores.names
    lines = [[name, *counts] for name, counts in zip(names, row.scores.matrix.tolist(), strict=True)]
    return wandb.Table(columns=["reference", *names], data=lines)


def _confusion_picture(row: Row) -> "WandbImage":
    stream = BytesIO()
    confusion_figure(row.scores.matrix, row.scores.names).savefig(stream, dpi=DPI)
    return wandb.Image(Image.open(stream), caption=f"{row.name}, {row.where}")


def _pictures(finished: Artefact) -> dict[str, Any]:
    """The pictures of the stage, without the report's curves, which W&B draws itself."""
    pattern = "**/*.png" if finished.manifest.stage == "report" else "*.png"
    paths = [path.relative_to(finished.folder) for path in sorted(finished.folder.glob(pattern))]
    return {
        f"pictures/{path.with_suffix('')}": wandb.Image(str(finished.folder / path))
        for path in paths
        if path.parts[0] != "curves"
    }


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
