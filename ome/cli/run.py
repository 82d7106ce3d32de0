"""Runs the command line of `python -m ome.run` with Hydra."""

import os
import sys
from importlib.metadata import version
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ome.cli.command_log import removed_if_refused, settings_folder
from ome.cli.errors import fail, lines_for_user
from ome.cli.exits import quiet_output
from ome.cli.help import help_text, is_plain_help
from ome.cli.mistakes import lines_about
from ome.cli.presets import fitting_preset
from ome.cli.words import as_hydra_reads, check_words, is_setting
from ome.config.folders import checked_folder
from ome.distributed.rank import check_ranks, is_nonzero_rank
from ome.distributed.signals import Stopped
from ome.errors import UserError
from ome.faults import disk_fault
from ome.pipeline.manifest import RESOLVED

RESUMES = "; the same command resumes where it stopped"

NO_ARGUMENTS = """No arguments, so nothing runs. To start:
  python -m ome.run stage=all                   every stage on a procedural town, no data needed
  ome train IMAGES --tags TABLE                 your own images and their tags, up to a report
  python -m ome.run stage=all dataset=potsdam dataset.raw=FOLDER      a published data set
  python -m ome.run --help                      stages, choices and every setting"""

# A sweep's folders are named after the swept values; a file name has no slash and at most 255 bytes.
OmegaConf.register_new_resolver("file_name", lambda text: text.replace("/", "-")[:120], replace=True)


# Hydra creates the folder of its logs, and writes into it, before any code of this project runs.
OmegaConf.register_new_resolver("checked_folder", checked_folder, replace=True)
OmegaConf.register_new_resolver("settings_folder", settings_folder, replace=True)


@hydra.main(version_base="1.3", config_path="pkg://ome.conf", config_name="config")
def run(config: DictConfig) -> float | None:
    """Runs the selected stages, and returns the mIoU, which a searching sweeper maximises."""
    with quiet_output():  # Hydra would print a line of its own about an error that leaves this function
        return _run(config)


def _run(config: DictConfig) -> float | None:
    from ome.cli.launch import launch  # noqa: PLC0415 - --help and --cfg answer without loading torch
    from ome.cli.sweep import as_job  # noqa: PLC0415
    from ome.config.idle_settings import idle_settings  # noqa: PLC0415
    from ome.progress import say_once  # noqa: PLC0415

    hydra_config = HydraConfig.get()
    if hydra_config.mode == RunMode.MULTIRUN:
        if "TORCHELASTIC_RUN_ID" in os.environ:
            fail("a sweep starts the processes of each of its jobs itself: type python in place of torchrun")
        as_job(config, Path(hydra_config.sweep.dir), Path(hydra_config.runtime.output_dir))
    if not is_nonzero_rank():
        typed = [word.lstrip("+").partition("=")[0] for word in hydra_config.overrides.task]
        for line in idle_settings(config, typed):
            say_once(line)
    log = Path(hydra_config.runtime.output_dir)
    try:
        with removed_if_refused(log, hydra_config.output_subdir, Path(config.run_dir)):
            miou = launch(config)
        if config.plan or is_nonzero_rank():
            return miou
        OmegaConf.save(config, log / RESOLVED, resolve=not OmegaConf.is_missing(config.dataset, "raw"))
    except Exception as error:
        lines = error.args if isinstance(error, UserError) else (disk_fault(error),)
        if lines == (None,):
            raise
        fail(*lines)  # here and not in `main`, before Hydra adds its own lines
    return miou


def _is_nonzero_rank_checked() -> bool:
    try:
        check_ranks()
    except UserError as error:
        fail(*error.args)
    return is_nonzero_rank()


def main() -> None:
    """Runs the command line; a user error ends with one line and exit status 1."""
    if len(sys.argv) == 1 or "--version" in sys.argv:
        print(NO_ARGUMENTS if len(sys.argv) == 1 else f"ome {version('ome')}")  # noqa: T201
        return
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises errors instead of printing them
    # Hydra's parser refuses settings on both sides of an option, such as --config-dir.
    sys.argv[1:] = sorted(as_hydra_reads(sys.argv[1:]), key=is_setting)
    plans = any(word.lstrip("+").lower() == "plan=true" for word in sys.argv)
    if _is_nonzero_rank_checked() or plans:
        sys.argv += ["hydra.run.dir=.", "hydra.output_subdir=null", "hydra/job_logging=disabled"]
    try:
        check_words(sys.argv[1:])
        sys.argv += fitting_preset(sys.argv[1:])
        if is_plain_help(sys.argv[1:]):
            print(help_text(sys.argv[1:]))  # noqa: T201
        else:
            run()
    except (UserError, HydraException, OmegaConfBaseException) as error:
        if is_nonzero_rank():
            sys.exit(1)  # rank 0 prints the message
        fail(*lines_about(sys.argv[1:], error))
    except Exception as error:
        if not (lines := lines_for_user(error)):
            raise
        fail(*lines)
    except (KeyboardInterrupt, Stopped) as end:
        status = end.status if isinstance(end, Stopped) else 130
        fail(f"{'interrupted' if status == 130 else 'terminated'}{'' if plans else RESUMES}", status=status)
