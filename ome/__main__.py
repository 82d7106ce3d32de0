"""The command `ome`: `ome train IMAGES` and its like, or what `python -m ome.run` takes."""

import sys

from ome.errors import UserError


def main() -> None:
    """Runs the command line."""
    if len(sys.argv) == 1:
        sys.argv.append("--help")
    name = sys.argv[1]
    if name == "doctor":
        from ome.cli.doctor import main as doctor  # noqa: PLC0415 - each loads what it needs

        sys.exit(doctor(sys.argv[2:]))
    if name == "tags":
        from ome.tagging import main as tags  # noqa: PLC0415

        sys.exit(tags(sys.argv[2:]))
    if not name.startswith("-") and "=" not in name:
        _translate()
    from ome.run import main as run  # noqa: PLC0415

    run()


def _translate() -> None:
    """Turns a command such as `ome train IMAGES` into what `python -m ome.run` takes."""
    # Loads readers of scenes, for which --help and --version would wait.
    from ome.cli.commands import COMMANDS, words_of  # noqa: PLC0415
    from ome.cli.errors import fail  # noqa: PLC0415

    if sys.argv[1] in COMMANDS:
        try:
            sys.argv[1:] = words_of(sys.argv[1:])
        except UserError as error:
            fail(str(error))


if __name__ == "__main__":
    main()
