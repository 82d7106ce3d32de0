"""The rank of a process according to the environment variables of torchrun, srun or another launcher.

It is known before torch is loaded, so that only one process reports a mistyped command.
"""

import os
from typing import NamedTuple

TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
"""Environment variables that torchrun and most other launchers set for each process."""

SRUN = ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_JOB_ID")
"""Environment variables that srun sets for each task; a batch script has SLURM_NTASKS, but not the step's."""


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
