"""Where a process stands among those that a launcher started: torchrun, srun, or one that says it likewise.

Read before torch is loaded, so that only one process answers to a mistyped command.
"""

import os
from collections.abc import Mapping
from typing import NamedTuple

TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
"""What torchrun tells each process, and by agreement most other launchers."""

SRUN = ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_JOB_ID")
"""What srun tells each task. A batch script itself has no step: there SLURM_NTASKS alone would mislead."""


class Place(NamedTuple):
    """Ranks of a process and sizes of its group.

    Attributes:
        rank: Among all processes.
        world_size: Number of processes on all machines.
        local_rank: Among those on its machine: which GPU is its own.
        neighbours: Number of processes that share the cores it may use.
    """

    rank: int
    world_size: int
    local_rank: int
    neighbours: int


def is_nonzero_rank() -> bool:
    """Whether a launcher started this process as another than the first of several."""
    place = started_place()
    return place is not None and place.rank > 0


def started_place(environment: Mapping[str, str] = os.environ) -> Place | None:
    """The place that a launcher gave to this process; None where the command was typed as it is."""
    if all(name in environment for name in TORCHRUN):
        rank, world_size, local_rank = (int(environment[name]) for name in TORCHRUN[:3])
        return Place(rank, world_size, local_rank, int(environment.get("LOCAL_WORLD_SIZE", 1)))
    if all(name in environment for name in SRUN):
        world_size, rank, local_rank = (int(environment[name]) for name in SRUN[:3])
        # SLURM gives each task cores of its own.
        return Place(rank, world_size, local_rank, 1)
    return None
