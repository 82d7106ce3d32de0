"""The command `ome`: its commands such as `ome train IMAGES`, or settings as for `python -m ome.run`."""

import os
import sys

from ome.cli.exits import quiet_endings
from ome.cli.waiting import share_cores
from ome.errors import guess
from ome.memory import keep_memory

HELP = """ome: from image-level tags to pixel-accurate land-cover maps.

  ome tags IMAGES --classes A,B        a page that fills a table with the tags of the images
  ome train IMAGES --name NAME         trains on the images and their tags, up to a report in runs/NAME
  ome resume runs/NAME                 continues an interrupted run, with its own settings
  ome predict runs/NAME SCENE          maps a scene of any size; --polygons, --confidence
  ome report runs/NAME                 rewrites the report of a run
  ome compare runs/A runs/B            the scores of several runs in one table
  ome suggest runs/NAME                suggests tags of the untagged images, for ome tags --suggestions
  ome export runs/NAME                 the network as ONNX and torch.export; --target deepness for QGIS
  ome doctor [runs/NAME]               checks the installation, the machine and the data

Each command has its own --help. Any setting may follow train, resume, predict, report, compare,
suggest and export as KEY=VALUE; plan=true only prints the stages, tiles, steps and time of what would run.

  python -m ome.run --help             every stage, choice and setting
  python -m ome.run stage=all          every stage on a procedural town: no data needed"""


def main() -> None:
    """Runs the command line."""
    share_cores()
    keep_memory()
    with quiet_endings():
        _run()


def _run() -> None:
    if sys.argv[1:] in ([], ["--help"], ["-h"], ["help"]):
        print(HELP)  # noqa: T201
        return
    if sys.argv[1] == "help":  # ome help train
        sys.argv[1:] = [*sys.argv[2:], "--help"]
    name = sys.argv[1]
    for place, word in enumerate(sys.argv[1:]):
        if not word.strip() or (word.startswith("--") and word.endswith("=")):
            from ome.cli.errors import fail  # noqa: PLC0415

            what = f"argument {place} of ome {name}" if place else "the command"
            fail(f"{what} is empty ({word!r}), e.g. an unset variable of the shell: give a value")
    try:
        _command(name)
    except Exception as error:
        from ome.cli.errors import fail, lines_for_user  # noqa: PLC0415

        if not (lines := lines_for_user(error)):
            raise
        fail(*lines)


def _command(name: str) -> None:
    if name == "doctor":
        from ome.cli.doctor import main as doctor  # noqa: PLC0415 - each loads what it needs

        sys.exit(doctor(sys.argv[2:]))
    if name == "tags":
        from ome.tagging import main as tags  # noqa: PLC0415

        sys.exit(tags(sys.argv[2:]))
    if not name.startswith("-") and "=" not in name:
        _translate()
    from ome.cli.run import main as run  # noqa: PLC0415

    # As for `python -m ome.run`, but last: plug-ins may lie in the folder where the run's command was typed.
    sys.path.append(os.getcwd())  # noqa: PTH109
    run()


def _translate() -> None:
    """Translates a command such as `ome train IMAGES` to settings of `python -m ome.run`."""
    # Imported here to keep --help and --version fast.
    from ome.cli.commands import COMMANDS, words_of  # noqa: PLC0415
    from ome.cli.errors import fail  # noqa: PLC0415

    if sys.argv[1] not in COMMANDS:
        known = ("tags", *COMMANDS, "doctor")
        hint = guess(sys.argv[1], known, "did you mean {}? ", "")
        fail(f"unknown command '{sys.argv[1]}': {hint}choose one of {', '.join(known)}")
    sys.argv[1:] = words_of(sys.argv[1:])


if __name__ == "__main__":
    main()
