"""The entry point: `python -m ome.run stage=cam dataset=potsdam backbone=resnet38d`."""

import difflib
import os
import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from ome.errors import UserError
from ome.progress import console


@hydra.main(version_base="1.3", config_path="pkg://ome.conf", config_name="config")
def run(config: DictConfig) -> None:
    """Runs the stage that the configuration names."""
    from ome.stages.all import run_stages  # noqa: PLC0415 - torch is not needed for --help and --cfg

    if HydraConfig.get().mode == RunMode.MULTIRUN:
        with open_dict(config):
            config.inherit = config.inherit or config.run_dir
            config.run_dir = HydraConfig.get().runtime.output_dir
    run_stages(config, list(HydraConfig.get().overrides.task))
    OmegaConf.save(config, Path(HydraConfig.get().runtime.output_dir) / "resolved.yaml", resolve=True)


def main() -> None:
    """Runs the command line; a mistake of the user ends with one line and exit status 1."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach us as they are
    try:
        run()
    except UserError as error:
        _fail(str(error))
    except (HydraException, OmegaConfBaseException) as error:
        _fail(_explain(error))
    except KeyboardInterrupt:
        _fail("interrupted; the same command goes on where it stopped", status=130)


def _explain(error: Exception) -> str:
    """Puts what Hydra and OmegaConf say about a wrong override into one line."""
    line = " ".join(str(error).split())
    cause = error.__cause__
    if isinstance(cause, OmegaConfBaseException) and cause.parent_node is not None:
        known = [str(key) for key in cause.parent_node]
        near = difflib.get_close_matches(str(cause.key), known, n=1)
        wrong = cause.full_key or cause.key
        hint = f"did you mean {near[0]}?" if near else f"known are: {', '.join(known)}"
        return f"there is no config key {wrong}: {hint}"
    return line


def _fail(line: str, status: int = 1) -> None:
    console.print(f"[bold red]error:[/] {line}", highlight=False)
    sys.exit(status)


if __name__ == "__main__":
    main()
