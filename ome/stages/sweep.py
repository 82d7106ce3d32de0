"""A sweep: many jobs that share what is the same, and one table at the end."""

import glob
import shutil
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict

from ome.errors import UserError


def as_job(config: DictConfig, sweep: Path, folder: Path) -> None:
    """Makes of a configuration that of a job: a folder of its own, and everybody's finished stages to read.

    Finished stages are looked for in the run of that name outside the sweep, then in the other jobs' folders.

    Args:
        config: The job's configuration, changed in place.
        sweep: The folder of the sweep.
        folder: The folder of the job.
    """
    from ome.stages.lookup import listed  # noqa: PLC0415 - Hydra loads this module to print --help

    with open_dict(config):
        config.inherit = [*(listed(config.inherit) or [config.run_dir]), f"{glob.escape(str(sweep))}/*"]
        config.run_dir = str(folder)
        if config.logger.get("group", "") is None:
            config.logger.group = sweep.name


class CompareJobs(Callback):
    """Compares the jobs of a sweep when the last has ended, in the folder `compare` of the sweep."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:  # noqa: ANN401 - fixed by Hydra
        """Runs `stage=compare` over the jobs' folders."""
        del kwargs
        from ome.progress import console  # noqa: PLC0415
        from ome.stages.compare import STAGE  # noqa: PLC0415 - torch is loaded where there is something to do
        from ome.stages.lookup import listed  # noqa: PLC0415
        from ome.stages.stage import execute  # noqa: PLC0415

        sweep = Path(config.hydra.sweep.dir)
        made = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
        with open_dict(made):
            made.stage = {"name": STAGE.name, "runs": f"{glob.escape(str(sweep))}/*"}
            made.inherit = listed(config.inherit) or [config.run_dir]
            made.run_dir = str(sweep)
        try:
            execute(STAGE, made)
            console.print(f"comparison: {(sweep / STAGE.name).resolve()}", highlight=False)
        except UserError as error:
            shutil.rmtree(sweep / f"{STAGE.name}.partial", ignore_errors=True)
            console.print(f"[yellow]no comparison[/]: {error}", highlight=False)
