"""The parser of a command's arguments, whose errors are one line."""

import argparse
from collections.abc import Sequence
from itertools import takewhile
from typing import Final, NoReturn

from ome.errors import UserError, guess

_MEANT: Final = dict.fromkeys(("-o", "--out", "--output", "--output-dir"), "--name")
"""Options of other programs, and those that stand for them here."""


class Arguments(argparse.ArgumentParser):
    """An `argparse` parser of the words after a command such as `ome tags`; options are typed in full.

    Args:
        command: The command, `ome tags`.
        summary: What it does, for its help.
        note: Last lines of its help.
    """

    def __init__(self, command: str, summary: str, note: str | None = None) -> None:
        super().__init__(command, description=summary, epilog=note, allow_abbrev=False)

    def parse(self, words: Sequence[str], other: str = "") -> argparse.Namespace:
        """Parses words.

        Args:
            words: As typed after the command.
            other: What else the command takes, for the error about an unknown option.

        Raises:
            UserError: A word is missing, unknown, one too many, or has another form.
        """
        known = [*self._option_string_actions]
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
        raise UserError(f"{self.prog}: {message}: type {self._form()}; {self.prog} --help lists options")

    def _form(self) -> str:
        """The command with the names of its words, such as `ome predict RUN SCENE`."""
        return " ".join((self.prog, *(one.dest.upper() for one in self._get_positional_actions())))
