"""The parser of a command's arguments, whose errors are one line."""

import argparse
import os
import re
from collections.abc import Collection, Sequence
from itertools import takewhile
from typing import Final, NoReturn

from ome.errors import UserError, guess

_MEANT: Final = dict.fromkeys(("-o", "--out", "--output", "--output-dir"), "--name")
"""Options of other programs, and those that stand for them here."""


def dashed_files(words: Sequence[str], known: Collection[str]) -> list[str]:
    """The words, with `./` before the names of files and folders that would be taken for unknown options.

    Args:
        words: As typed; those after `--` are no options.
        known: The options that there are.
    """
    options = [*takewhile(lambda word: word != "--", words)]
    for place, word in enumerate(options):
        if word.startswith("-") and word.partition("=")[0] not in known and os.path.lexists(word):
            options[place] = f"./{word}"
    return [*options, *words[len(options) :]]


def in_words(message: str) -> str:
    """The message of an `argparse` parser, in other words where it would leave open what to type."""
    extra = re.fullmatch(r"argument (\S+): ignored explicit argument .*", message, re.DOTALL)
    return f"{extra[1]} takes no value, omit what follows its =" if extra else message


class Arguments(argparse.ArgumentParser):
    """An `argparse` parser of the words after a command such as `ome tags`; options are typed in full.

    Args:
        command: The command, `ome tags`.
        summary: What it does, for its help.
        note: Last lines of its help.
    """

    def __init__(self, command: str, summary: str, note: str | None = None) -> None:
        super().__init__(command, description=summary, epilog=note, allow_abbrev=False)
        self._files: list[str] = []

    def parse(self, words: Sequence[str], other: str = "") -> argparse.Namespace:
        """Parses words.

        Args:
            words: As typed after the command.
            other: What else the command takes, for the error about an unknown option.

        Raises:
            UserError: A word is missing, unknown, one too many, or has another form.
        """
        known = [*self._option_string_actions]
        words = dashed_files(words, known)
        self._files = [word for word in words if word in known and os.path.lexists(word)]
        # Before the parser, which would only say what is missing; words after -- are no options.
        for word in takewhile(lambda word: word != "--", words):
            option = word.partition("=")[0]
            if option.startswith("-") and option not in known:
                hint = f"{guess(_MEANT.get(option, option), known)} {self.prog} --help"
                raise UserError(f"{self.prog} does not know {option}{hint} lists options{other}")
        options, unknown = self.parse_known_args(words)
        if not unknown:
            return options
        raise UserError(
            f"{unknown[0]} is a word too many: type {self._form()}, a path with spaces in quotes, and a "
            "command for each path"
        )

    def error(self, message: str) -> NoReturn:
        """Raises what `argparse` would print below its page of usage.

        Raises:
            UserError: Always.
        """
        file = f"; type ./{self._files[0]} for the file of that name" if self._files else ""
        raise UserError(
            f"{self.prog}: {in_words(message)}: type {self._form()}{file}; {self.prog} --help lists options"
        )

    def _form(self) -> str:
        """The command with the names of its words, such as `ome predict RUN SCENE`."""
        return " ".join((self.prog, *(one.dest.upper() for one in self._get_positional_actions())))
