"""Submits a run to SLURM with submitit, or starts it on this machine if there is no SLURM.

    python scripts/submit.py --nodes 2 --tasks 4 --hours 24 -- stage=cam dataset=potsdam trainer=ddp

The words after `--` are the command line of `python -m ome.run`. SLURM starts `--tasks` processes on every
node, and starts the job again after a preemption or at its time limit; the run then resumes where it stopped.
"""

import argparse
import runpy
import sys
from pathlib import Path

import submitit


def run(overrides: list[str]) -> None:
    """Sets the environment variables of the process's rank, and starts the run."""
    submitit.helpers.TorchDistributedEnvironment().export(set_cuda_visible_devices=False)
    sys.argv = ["ome.run", *overrides]
    try:
        runpy.run_module("ome.run", run_name="__main__")
    except SystemExit as end:
        if end.code:
            raise RuntimeError(f"the run ended with status {end.code}, see the error above") from None


class Job:
    """The callable that submitit pickles and submits, again after a preemption."""

    def __call__(self, overrides: list[str]) -> None:
        """Starts the run."""
        run(overrides)

    def checkpoint(self, overrides: list[str]) -> submitit.helpers.DelayedSubmission:
        """Returns the same job, which resumes the run."""
        return submitit.helpers.DelayedSubmission(Job(), overrides)


def main() -> None:
    """Submits the run; waits for it if it is on this machine."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--tasks", type=int, default=1, help="processes on each node, one per GPU")
    parser.add_argument("--gpus", type=int, default=0, help="GPUs on each node")
    parser.add_argument("--cpus", type=int, default=8, help="cores of each process")
    parser.add_argument("--memory", type=int, default=64, help="GB on each node")
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument("--partition", default=None)
    parser.add_argument("--logs", type=Path, default=Path("runs/submitted"))
    parser.add_argument("overrides", nargs="+", help="command line of python -m ome.run, after --")
    options = parser.parse_args()
    executor = submitit.AutoExecutor(folder=options.logs)
    executor.update_parameters(
        name="ome",
        nodes=options.nodes,
        tasks_per_node=options.tasks,
        gpus_per_node=options.gpus,
        cpus_per_task=options.cpus,
        mem_gb=options.memory,
        timeout_min=int(60 * options.hours),
        **({"slurm_partition": options.partition} if options.partition else {}),
    )
    job = executor.submit(Job(), options.overrides)
    print(f"job {job.job_id}, logs {job.paths.stdout}")
    if executor.cluster == "local":
        failed = job.exception() is not None  # waits
        print(*_shown(options.logs, job.job_id), sep="\n")
        sys.exit(1 if failed else 0)


def _shown(logs: Path, job: str) -> list[str]:
    """The output of the first process, and the error lines in the logs of the others."""
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
