"""The rank of a process according to the environment variables of torchrun, srun or another launcher.

It is known before torch is loaded, so that only one process reports a mistyped command.
"""

import os
import re
from typing import NamedTuple

from ome.errors import UserError

TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
"""Environment variables that torchrun and most other launchers set for each process."""

SRUN = ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_JOB_ID")
"""Environment variables that srun sets for each task; a batch script has SLURM_NTASKS, but not the step's."""

_RANKS = {"RANK": "WORLD_SIZE", "LOCAL_RANK": "LOCAL_WORLD_SIZE", "SLURM_PROCID": "SLURM_STEP_NUM_TASKS"}
"""The number of processes that each rank is below, by the environment variables of both."""


class Place(NamedTuple):
    """Ranks of a process and sizes of its group.

    Attributes:
        rank: Rank among all processes.
        world_size: Number of processes on all machines.
        local_rank: Rank among the processes on its machine; the number of its GPU.
        neighbours: Number of processes that share its cores, including itself.
    """

    rank: int
    world_size: int
    local_rank: int
    neighbours: int


def check_ranks() -> None:
    """Checks the numbers that a launcher gave to this process.

    Raises:
        UserError: One is not a number, or a rank is not below the number of processes.
    """
    remedy = "torchrun or srun sets it; in a process started by hand, unset it"
    for name in (*TORCHRUN[:3], "LOCAL_WORLD_SIZE", *SRUN[:3]):
        if not re.fullmatch("[0-9]{1,9}", value := os.environ.get(name, "0")):
            raise UserError(f"the environment variable {name}={value} is not a whole number: {remedy}")
    for name, size in _RANKS.items():
        value, count = os.environ.get(name, "0"), os.environ.get(size)
        if count is not None and int(value) >= int(count):
            raise UserError(f"the environment variable {name}={value} is not below {size}={count}: {remedy}")


def is_nonzero_rank() -> bool:
    """Whether a launcher started this process with a rank above 0."""
    place = started_place()
    return place is not None and place.rank > 0


def started_place() -> Place | None:
    """The ranks that a launcher gave to this process; None if it was started without one."""
    environment = os.environ
    if all(name in environment for name in TORCHRUN):
        rank, world_size, local_rank = (int(environment[name]) for name in TORCHRUN[:3])
        return Place(rank, world_size, local_rank, int(environment.get("LOCAL_WORLD_SIZE", 1)))
    if all(name in environment for name in SRUN):
        world_size, rank, local_rank = (int(environment[name]) for name in SRUN[:3])
        # SLURM gives each task separate cores.
        return Place(rank, world_size, local_rank, 1)
    return None


def is_limited_by_torchrun(place: Place) -> bool:
    """Whether a process has one thread because torchrun sets that for each of several, if nothing else is."""
    by_torchrun = "TORCHELASTIC_RUN_ID" in os.environ and place.neighbours > 1
    return by_torchrun and os.environ.get("OMP_NUM_THREADS") == "1"
