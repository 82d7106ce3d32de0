"""The command `ome`: `ome stage=cam ...` is `python -m ome.run stage=cam ...`; `ome doctor` looks around."""

import sys


def main() -> None:
    """Runs the command line."""
    if sys.argv[1:2] == ["doctor"]:
        from ome.stages.doctor import main as doctor  # noqa: PLC0415 - each of the two loads what it needs

        sys.exit(doctor(sys.argv[2:]))
    from ome.run import main as run  # noqa: PLC0415

    run()


if __name__ == "__main__":
    main()
