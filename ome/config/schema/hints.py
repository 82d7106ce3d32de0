"""Checks and descriptions of values from the type hints of settings."""

import math
import re
import types
from collections.abc import Iterator
from dataclasses import is_dataclass
from typing import Annotated, Any, Final, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from ome.config.schema.limits import NAN_ALLOWED, Limit

_WORDS: Final = {int: "a whole number", float: "a number", str: "text", Any: "anything"}
_KINDS: Final = {float: (int, float), str: (str, int, float)}  # a name or a path may look like a number


class Hint(NamedTuple):
    """The parts of an annotation.

    Attributes:
        options: The type, or the types of a union.
        limits: Conditions on values of the right type.
        meaning: Meaning of the setting.
    """

    options: tuple[Any, ...]
    limits: tuple[Limit, ...]
    meaning: str

    @property
    def group(self) -> type | None:
        """The dataclass among the options, if the setting is a group of settings."""
        return next(
            (option for option in self.options if isinstance(option, type) and is_dataclass(option)), None
        )


def parse(annotation: Any) -> Hint:  # noqa: ANN401 - as get_type_hints gives them
    """Splits an annotation into its parts."""
    inner, *extras = get_args(annotation) if get_origin(annotation) is Annotated else (annotation,)
    union = get_origin(inner) in {Union, types.UnionType}
    return Hint(
        get_args(inner) if union else (inner,),
        tuple(extra for extra in extras if isinstance(extra, Limit)),
        " ".join(extra for extra in extras if isinstance(extra, str)),
    )


def hints_of(group: type) -> dict[str, Hint]:
    """The settings of a dataclass by name."""
    return {name: parse(hint) for name, hint in get_type_hints(group, include_extras=True).items()}


def addresses(group: type, above: str = "") -> Iterator[tuple[str, Hint]]:
    """Yields dotted address and hint of every setting below a dataclass, and of groups that may be values."""
    for name, hint in hints_of(group).items():
        if hint.meaning:
            yield f"{above}{name}", hint
        if hint.group is not None:
            yield from addresses(hint.group, f"{above}{name}.")


def fits(value: Any, hint: Hint) -> bool:  # noqa: ANN401 - whatever was typed
    """Whether a value is of the type and within the limits."""
    if isinstance(value, float) and NAN_ALLOWED in hint.limits:
        return True
    return any(_fits(value, option) for option in hint.options) and all(
        limit.allows(value) for limit in hint.limits
    )


def text_of_number(value: Any, hint: Hint) -> Any:  # noqa: ANN401 - whatever was typed
    """The text of a number, or of numbers in a list, where a setting takes text alone; else the value."""
    if isinstance(value, list) and list[str] in hint.options:
        return [str(item) if _is_number(item) else item for item in value]
    others = [option for option in hint.options if option is not str]
    as_text = str in hint.options and _is_number(value) and not any(_fits(value, option) for option in others)
    return str(value) if as_text else value


def _is_number(value: Any) -> bool:  # noqa: ANN401
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _fits(value: Any, option: Any) -> bool:  # noqa: ANN401
    origin, inner = get_origin(option), get_args(option)
    if origin is Annotated:
        return fits(value, parse(option))
    if origin is Literal:
        # In Python True == 1.
        return any(value == choice and type(value) is type(choice) for choice in inner)
    if origin in {list, dict}:
        items = value.values() if isinstance(value, dict) else value
        return isinstance(value, origin) and all(fits(item, parse(inner[-1])) for item in items)
    if option is Any:
        return True
    impossible = (
        (isinstance(value, float) and not math.isfinite(value))
        or (isinstance(value, int) and not -(2**63) <= value < 2**63)  # overflows arrays
        or (isinstance(value, str) and not value.strip())  # a shell leaves nothing of an unset variable
    )
    if impossible:
        return False
    return isinstance(value, _KINDS.get(option, option)) and (option is bool or not isinstance(value, bool))


def expected(hint: Hint) -> str:
    """Describes the values of a setting in words."""
    choices = [str(choice) for option in hint.options for choice in _choices(option)]
    nouns = [_noun(option) for option in hint.options if not _choices(option) and option is not type(None)]
    *others, last = [*choices, *nouns]
    text = f"{', '.join(others)} or {last}" if others else last
    for limit in hint.limits:
        text = limit.words(text)
    return f"{text}, or null" if type(None) in hint.options else text


def _choices(option: Any) -> tuple[Any, ...]:  # noqa: ANN401
    if option is bool:
        return "true", "false"
    return get_args(option) if get_origin(option) is Literal else ()


def _noun(option: Any) -> str:  # noqa: ANN401
    origin, inner = get_origin(option), get_args(option)
    if origin is Annotated:
        return expected(parse(option))
    if origin is list:
        what = parse(inner[0])
        if choices := [str(choice) for option in what.options for choice in _choices(option)]:
            return f"a list of values among {', '.join(choices)}"
        return f"a list of {_plural(expected(what))}"
    if origin is dict:
        what = parse(inner[1])
        return "a mapping" if what.options == (Any,) else f"a mapping of names to {_plural(expected(what))}"
    return "a group of settings" if is_dataclass(option) else _WORDS[option]


def _plural(noun: str) -> str:
    return re.sub(r"^a (whole number|number|list|mapping)\b", r"\1s", noun)
