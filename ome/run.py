"""The entry point: `python -m ome.run stage=cam dataset=potsdam backbone=resnet38d`."""

from ome.cli.exits import quiet_endings
from ome.cli.waiting import share_cores
from ome.memory import keep_memory


def main() -> None:
    """Runs the command line; an error of the user ends with one line and exit status 1."""
    share_cores()
    keep_memory()
    with quiet_endings():
        from ome.cli.run import main as run  # noqa: PLC0415 - importing Hydra may be interrupted too

        run()


if __name__ == "__main__":
    main()
