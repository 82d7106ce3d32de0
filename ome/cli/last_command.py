"""The settings of a run's last command, which the commands of a finished run repeat."""

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from rich.markup import escape

from ome.damage import DamagedError, named_if_damaged, read_yaml
from ome.errors import UserError, no_folder, shell_word
from ome.pipeline.layout import command_files
from ome.pipeline.registry import SIDE_STAGES
from ome.progress import console

_NOT_REPEATED: Final = {"stage", "stage.until", "force", "verify", "output", "run_dir", "sweep"}
"""Settings of an earlier command that select its stages and folders, and are not repeated."""


class _Command(NamedTuple):
    """A command as it was typed: what `${...}` stands for is not known here.

    Attributes:
        makes_run: Whether it made something of the run itself, not only e.g. a map with it.
        time: When Hydra saved it.
        words: Its settings.
        folder: The working folder.
        sources: The folders of `--config-dir`.
        preset: The choice of the group `preset`.
    """

    makes_run: bool
    time: int
    words: list[str]
    folder: Path
    sources: list[Path]
    preset: str


def repeated_words(folder: Path) -> list[str]:
    """The settings of a run's last undamaged command; changes to the working folder of that command.

    Args:
        folder: The folder of the run.

    Raises:
        UserError: The folder does not exist, is not that of a run, or all its commands are damaged.
    """
    if not folder.is_dir():
        raise UserError(f"{no_folder(folder)}: give the folder of a run, such as runs/valley")
    files = command_files(folder.absolute())
    if not files:
        raise UserError(f"{folder} is not the folder of a run: give one such as runs/valley")
    commands: list[_Command] = []
    for path in files:
        try:
            commands.append(_read(path))
        except DamagedError as error:
            console.print(f"[yellow]a command is left out:[/] {escape(str(error))}")
    if not commands:
        raise UserError(
            f"every command saved in {folder / 'logs'} is damaged: type python -m ome.run stage=... with "
            f"the settings of the run and run_dir={shell_word(folder)}"
        )
    last = max(commands)
    with suppress(FileNotFoundError):
        os.chdir(last.folder)  # relative paths among the settings start there
    words = [word for word in last.words if _is_repeated(word.partition("=")[0].lstrip("+~"))]
    return [*(f"--config-dir={path}" for path in last.sources), *words]


def preset_before(run: Path, log: Path) -> str | None:
    """The preset of the last command that made something of a run; None where there was none.

    Args:
        run: The folder of the run.
        log: The log folder of the present command, which does not count.
    """
    files = [path for path in command_files(run) if log not in path.parents[:2]]
    # From the last: a run may have hundreds of logs, and this happens whenever a command starts.
    for path in sorted(files, key=lambda path: path.stat().st_mtime_ns, reverse=True):
        with suppress(DamagedError):
            if (command := _read(path)).makes_run:
                return command.preset
    return None


def _read(typed: Path) -> _Command:
    """Reads what Hydra saved of a command.

    Raises:
        DamagedError: One of the two files is damaged or missing.
    """
    words = [str(word) for word in read_yaml(typed, list)]
    path = typed.with_name("hydra.yaml")
    with named_if_damaged(path):
        runtime = read_yaml(path)["hydra"]["runtime"]
        started = Path(runtime["cwd"])
        folder = _working_folder(started, Path(runtime.get("output_dir", started)), typed.parents[1], words)
        own = [Path(one["path"]) for one in runtime["config_sources"] if one["provider"] == "command-line"]
        sources = [folder / one.relative_to(started) if one.is_relative_to(started) else one for one in own]
        preset = str(runtime["choices"]["preset"])
    stage = dict(word.partition("=")[::2] for word in words).get("stage")
    return _Command(stage not in SIDE_STAGES, typed.stat().st_mtime_ns, words, folder, sources, preset)


def _working_folder(started: Path, log: Path, now: Path, words: Sequence[str]) -> Path:
    """The working folder of a command today: a project may have been moved or copied with its runs.

    Args:
        started: The working folder then.
        log: The log folder then.
        now: The log folder today.
        words: Its settings: where their paths are only in the folder of then, the runs came without the rest.
    """
    inside = log.relative_to(started).parts if log.is_relative_to(started) else ()
    if not inside or now.parts[-len(inside) :] != inside:
        return started
    today = Path(*now.parts[: -len(inside)])
    values = [word.partition("=")[2] for word in words]
    is_alone = any(os.path.exists(started / one) and not os.path.exists(today / one) for one in values)  # noqa: PTH110
    return started if is_alone else today


def _is_repeated(key: str) -> bool:
    """Whether a setting of an earlier command describes the run and must be repeated."""
    stage = key.removeprefix("stage.").partition(".")[0]
    return key not in _NOT_REPEATED and not (key.startswith("stage.") and stage in SIDE_STAGES)
