"""Submits a run to SLURM, or where there is none starts it on this machine, through submitit.

    python scripts/submit.py --nodes 2 --tasks 4 --hours 24 -- stage=cam dataset=potsdam trainer=ddp

What stands after `--` is the command line of `python -m ome.run`. SLURM starts `--tasks` processes on every
node, and starts the job again after it was preempted or its time was up; the run then goes on where it was.
"""

import argparse
import runpy
import sys
from pathlib import Path

import submitit


def run(overrides: list[str]) -> None:
    """One process of the job: tells the run where it stands among the others, and starts it."""
    submitit.helpers.TorchDistributedEnvironment().export(set_cuda_visible_devices=False)
    sys.argv = ["ome.run", *overrides]
    try:
        runpy.run_module("ome.run", run_name="__main__")
    except SystemExit as end:
        if end.code:
            raise RuntimeError(f"the run ended with status {end.code}: the reason is above") from None


class Job:
    """What submitit pickles, sends and, after a preemption, sends again."""

    def __call__(self, overrides: list[str]) -> None:
        """Runs."""
        run(overrides)

    def checkpoint(self, overrides: list[str]) -> submitit.helpers.DelayedSubmission:
        """The same command: it finds what is done."""
        return submitit.helpers.DelayedSubmission(Job(), overrides)


def main() -> None:
    """Submits, and waits where the run is on this machine."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--tasks", type=int, default=1, help="processes on each node, one for each GPU")
    parser.add_argument("--gpus", type=int, default=0, help="GPUs on each node")
    parser.add_argument("--cpus", type=int, default=8, help="cores of each process")
    parser.add_argument("--memory", type=int, default=64, help="GB on each node")
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument("--partition", default=None)
    parser.add_argument("--logs", type=Path, default=Path("runs/submitted"))
    parser.add_argument("overrides", nargs="+", help="of python -m ome.run, after --")
    given = parser.parse_args()
    executor = submitit.AutoExecutor(folder=given.logs)
    executor.update_parameters(
        name="ome",
        nodes=given.nodes,
        tasks_per_node=given.tasks,
        gpus_per_node=given.gpus,
        cpus_per_task=given.cpus,
        mem_gb=given.memory,
        timeout_min=int(60 * given.hours),
        **({"slurm_partition": given.partition} if given.partition else {}),
    )
    job = executor.submit(Job(), given.overrides)
    print(f"job {job.job_id}, logs {job.paths.stdout}")
    if executor.cluster == "local":
        failed = job.exception() is not None  # waits
        print(*_shown(given.logs, job.job_id), sep="\n")
        sys.exit(1 if failed else 0)


def _shown(logs: Path, job: str) -> list[str]:
    """What the first process printed, and why another ended: the first to fail says it, in its own log."""
    first, *others = sorted(logs.glob(f"{job}_*_log.out"))
    reasons = [
        line
        for path in others
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.startswith("error:")
    ]
    return [first.read_text(encoding="utf-8"), *reasons]


if __name__ == "__main__":
    main()
