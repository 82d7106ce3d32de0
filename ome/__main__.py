"""The command `ome`: `python -m ome.run`, and beside it `ome doctor` and `ome tags`."""

import sys


def main() -> None:
    """Runs the command line."""
    if sys.argv[1:2] == ["doctor"]:
        from ome.cli.doctor import main as doctor  # noqa: PLC0415 - each loads what it needs

        sys.exit(doctor(sys.argv[2:]))
    if sys.argv[1:2] == ["tags"]:
        from ome.tagging import main as tags  # noqa: PLC0415

        sys.exit(tags(sys.argv[2:]))
    from ome.run import main as run  # noqa: PLC0415

    run()


if __name__ == "__main__":
    main()
