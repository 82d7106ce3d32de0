"""Runs the stages in as many processes as `trainer` sets, or in those that a launcher has started."""

from collections.abc import Callable
from functools import partial

from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from ome.cli.runner import last_objective, print_plan, run_stages, selected_stages
from ome.config.checks import check_settings, numbers_to_text
from ome.config.trainer_checks import check_training
from ome.distributed.rank import Place, is_nonzero_rank, started_place
from ome.distributed.signals import stopping_on_signals
from ome.errors import UserError
from ome.progress import console


def launch(config: DictConfig) -> float | None:
    """Runs the selected stages, distributed or not.

    With `trainer.strategy=ddp` there is a process for each device. torchrun, srun or the like may have
    started them, and each calls this function; otherwise it starts them on this machine.

    Args:
        config: The composed configuration.

    Returns:
        See `run_stages`; None for a plan.

    Raises:
        UserError: See `run_stages`; or the processes, an argument or a callback do not fit the trainer.
        Stopped: The process received SIGTERM or SIGINT.
    """
    with console.status("checking the settings"):  # a terminal shows it while torch loads
        check_command(config)
    if config.plan:
        if not is_nonzero_rank():
            with stopping_on_signals():
                print_plan(config)
        return None
    place, work = started_place(), partial(run_stages, config)
    started = place.world_size if place else 1
    with stopping_on_signals():
        if config.trainer.strategy == "auto" and started == 1:
            return work()
        return _launch_several(config, place, started, work)


def check_command(config: DictConfig) -> None:
    """Checks everything that can be checked before the first stage, and reports all errors at once.

    Raises:
        UserError: Something is wrong; a line for each error says what is expected.
    """
    numbers_to_text(config)
    lines: list[str] = []
    stages: list[str] = []
    unexpected: list[Exception] = []

    def selected() -> None:
        stages.extend(selected_stages(config))

    for check in (selected, lambda: check_settings(config, stages), lambda: check_training(config)):
        try:
            check()
        except UserError as error:
            lines += error.args
        except (TypeError, ValueError, AttributeError, OmegaConfBaseException) as error:
            unexpected.append(error)
    if lines:  # they explain what else went wrong: a value of a wrong type
        raise UserError(*dict.fromkeys(lines))
    if unexpected:
        raise unexpected[0]


def _launch_several(
    config: DictConfig, place: Place | None, started: int, work: Callable[[], float | None]
) -> float | None:
    # Loads torch, which some stages do not need in a single process.
    from ome.config.objects import hardware  # noqa: PLC0415
    from ome.distributed.local import run_in_processes  # noqa: PLC0415
    from ome.distributed.processes import joined_group  # noqa: PLC0415

    machine = hardware(config)
    if machine.strategy != "ddp":
        raise UserError(
            f"{started} processes were started, but trainer.strategy={machine.strategy} uses one: "
            "type trainer=ddp or trainer=ddp_cpu, or start one"
        )
    if place is not None and started > 1:
        with joined_group(place, gpu=machine.uses_gpu):
            return work()
    if machine.num_nodes > 1:
        raise UserError(
            f"trainer.num_nodes={machine.num_nodes}: start the processes of several machines by torchrun "
            "or srun, see docs/cluster.md"
        )
    if (count := machine.processes()) == 1:
        return work()
    run_in_processes(count, work, gpu=machine.uses_gpu)
    return last_objective(config)
