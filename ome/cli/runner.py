"""Runs the selected stages in order, or prints their plan."""

from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from rich.markup import escape

from ome.cli.last_command import preset_before
from ome.cli.plan import plan_of
from ome.cli.plan_table import show_plan, show_timed_plan
from ome.config.encoder_weights import fetch_published
from ome.config.sections import settings_of
from ome.data.tag_rows import read_tag_rows
from ome.distributed.collectives import is_rank_zero
from ome.distributed.rank import is_nonzero_rank
from ome.errors import UserError, shell_word
from ome.pipeline.artifacts import results_of
from ome.pipeline.engine import execute
from ome.pipeline.layout import SEGMENTER_TITLES
from ome.pipeline.parts import execute_parts
from ome.pipeline.registry import SIDE_STAGES, STAGES, find_stage
from ome.plugins import import_targets
from ome.progress import console
from ome.scoring.rows import read_rows
from ome.tracking.stages import stage_tracker


def run_stages(config: DictConfig) -> float | None:
    """Runs the selected stages.

    Args:
        config: The composed configuration.

    Returns:
        The mIoU of the last stage in [0, 1], see `objective`; None where it has no scores.

    Raises:
        UserError: See `execute`; or the stage does not exist, or the run's folder is that of a sweep.
    """
    import_targets(config)
    names = selected_stages(config)
    # A table for a paper is alone on standard output: ome compare RUNS --latex > table.tex.
    console.stderr = names == ["compare"] and config.stage.compare.format != "table"
    if names != ["compare"] and (Path(config.run_dir) / "multirun.yaml").exists():
        pattern, job = (shell_word(f"{config.run_dir}/{name}") for name in ("*", "0_..."))
        raise UserError(
            f"{config.run_dir} is a sweep, not a run: type stage=compare stage.compare.runs={pattern} for "
            f"the table of its runs, or run_dir={job} for one"
        )
    for name in names[1:]:  # before the first stage works for hours; its own folder is checked when it starts
        find_stage(name, config).place(settings_of(config, name)).check_finished()
    if len(names) > 1 and is_rank_zero():
        _say_preset(config)
        rows = plan_of(config, names)[0]
        show_plan(config, rows)
        fetch_published(config, {row.name for row in rows if row.forecast.state != "up to date"})
    folders: dict[str, Path] = {}
    for name in names:
        stage, stage_config = find_stage(name, config), settings_of(config, name)
        options: dict[str, Any] = {"force": config.force, "verify": config.verify}
        options["on_finish"] = stage_tracker(config)
        if parts := stage.several(stage_config):
            execute_parts(stage, stage_config, parts, **options)
            return None  # several parts have no single score
        execute(stage, stage_config, folders=folders, **options)
    last = names[-1]
    if last == "report":
        from ome.stages.report import show  # noqa: PLC0415 - imported only with this stage

        show(config, folders[last])
        trained = any(result.manifest.stage == "seg" for result in results_of(Path(config.run_dir)))
        if trained and not is_nonzero_rank():
            run = shell_word(config.run_dir)
            console.print(f"map a scene: ome predict {run} SCENE", markup=False)
    if last == "suggest" and config.dataset.tags and not is_nonzero_rank():
        console.print(f"the most uncertain images first: {_tagging(config, folders[last])}", markup=False)
    if last == "compare":
        from ome.stages.compare import show as show_comparison  # noqa: PLC0415

        show_comparison(settings_of(config, last), folders[last])
    return objective(folders[last])


def _tagging(config: DictConfig, suggestions: Path) -> str:
    """The command that tags the images of a run with the help of suggestions."""
    # The working folder is that of the run's command.
    raw, table = (Path(str(config.dataset[key])).absolute() for key in ("raw", "tags"))
    words = ["ome", "tags", str(raw), "--suggestions", f"{suggestions}/suggestions.csv"]
    words += [] if table == raw / "tags.csv" else ["--table", str(table)]
    if read_tag_rows(table, finished=False).form == "windows":
        words += ["--tile", str(config.dataset.tile.size)]
    return " ".join(map(shell_word, words))


def print_plan(config: DictConfig) -> None:
    """Prints what `run_stages` would do, and how long that takes; runs and writes nothing.

    Raises:
        UserError: See `run_stages`.
    """
    import_targets(config)
    names = selected_stages(config)
    if names[-1] not in SIDE_STAGES:
        _say_preset(config)
    show_timed_plan(config, names, verify=config.verify)


def _say_preset(config: DictConfig) -> None:
    """Prints the preset, which may have been chosen by the machine, and that of an earlier command."""
    if not HydraConfig.initialized():
        return
    runtime = HydraConfig.get().runtime
    preset, run = runtime.choices["preset"], Path(config.run_dir)
    others = ", ".join(name for name in ("quick", "few", "laptop", "gpu", "paper") if name != preset)
    console.print(f"preset={preset} (others: {others})")
    before = preset_before(run.absolute(), Path(runtime.output_dir))
    if before not in {None, preset}:
        console.print(
            f"[yellow]{escape(str(run))} was made with preset={before}[/]: type preset={before} to keep its "
            "settings, or another name (--name, name=...) to keep its results",
        )


def objective(folder: Path) -> float | None:
    """The mIoU that a search for the best settings maximises: the last one of a stage with tags alone.

    This is the mIoU of the CAMs, the pseudo masks or the segmenter of the last round, never that of the
    pixel-supervised upper bound.
    """
    weak = [row for row in read_rows(folder) if row.name != SEGMENTER_TITLES["full"]]
    return weak[-1].scores.miou if weak else None


def last_objective(config: DictConfig) -> float | None:
    """The `objective` of the last selected stage, read from the run's own folder."""
    name = selected_stages(config)[-1]
    stage, stage_config = find_stage(name, config), settings_of(config, name)
    return None if stage.several(stage_config) else objective(stage.folder(stage_config))


def selected_stages(config: DictConfig) -> list[str]:
    """Names of the stages to run: the selected one, or with `stage=all` each enabled one to `stage.until`.

    Raises:
        UserError: The stage does not exist.
    """
    selected = config.stage.name
    if selected == "all":
        last = config.stage.until
        if last in SIDE_STAGES:
            raise UserError(f"stage.until={last}: stage=all never runs this stage: type stage={last}")
        if last not in STAGES:
            raise UserError(f"stage.until={last}: unknown stage '{last}': choose one of {', '.join(STAGES)}")
        before = STAGES[: STAGES.index(last)]
        return [*(name for name in before if find_stage(name, config).enabled(config)), last]
    find_stage(selected, config)
    return [selected]
