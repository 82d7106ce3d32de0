"""What can be known of the settings before the first stage starts."""

import types
from collections.abc import Iterator
from typing import Annotated, Any, Final, Union, get_args, get_origin, get_type_hints

from omegaconf import DictConfig

from ome.config.schema import SCHEMA, Above, AtLeast, Length
from ome.errors import UserError
from ome.pipeline.artifacts import plain

_WORDS: Final = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
_KINDS: Final = {float: (int, float), str: (str, int, float)}  # a name or a path may look like a number


def check_settings(config: DictConfig) -> None:
    """Checks types and ranges of all settings at once.

    Raises:
        UserError: Some are wrong; a line for each says what is expected.
    """
    faults = list(_faults(config))
    if faults:
        raise UserError("\n".join(faults))


def _faults(config: DictConfig) -> Iterator[str]:
    for address, schema in SCHEMA.items():
        for name, hint in get_type_hints(schema, include_extras=True).items():
            key = f"{address}.{name}".removeprefix(".")
            value = plain(config, key)
            if not _fits(value, hint):
                yield f"{key}={value}: expected {_expected(hint)}"


def _fits(value: Any, hint: Any) -> bool:  # noqa: ANN401 - whatever was typed
    if get_origin(hint) is Annotated:
        inner, *limits = get_args(hint)
        return _fits(value, inner) and all(_within(value, limit) for limit in limits)
    if get_origin(hint) in {Union, types.UnionType}:
        return any(_fits(value, option) for option in get_args(hint))
    if get_origin(hint) is list:
        return isinstance(value, list) and all(_fits(item, *get_args(hint)) for item in value)
    # Python takes true for 1.
    return isinstance(value, _KINDS.get(hint, hint)) and (hint is bool or not isinstance(value, bool))


def _within(value: Any, limit: object) -> bool:  # noqa: ANN401
    match limit:
        case AtLeast(low):
            return bool(value >= low)
        case Above(low):
            return not value <= low  # nan is found by the training itself, with the step
        case Length(count):
            return len(value) == count
    return True


def _expected(hint: Any) -> str:  # noqa: ANN401
    if get_origin(hint) is Annotated:
        inner, *limits = get_args(hint)
        words = _expected(inner)
        for limit in limits:
            match limit:
                case AtLeast(low):
                    words += f" of at least {low:g}"
                case Above(low):
                    words += f" above {low:g}"
                case Length(count):
                    words = f"a list of {count} numbers"
        return words
    if get_origin(hint) in {Union, types.UnionType}:
        return " or ".join("null" if option is type(None) else _expected(option) for option in get_args(hint))
    return "a list of numbers" if get_origin(hint) is list else _WORDS[hint]
