"""Repeated runs: mean and standard deviation of scores, and settings that distinguish runs."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Spread:
    """A score over several runs.

    Attributes:
        mean: Mean of the scores.
        deviation: Sample standard deviation (divisor n - 1); nan for a single run.
        runs: Number of runs, n.
    """

    mean: float
    deviation: float
    runs: int

    def __str__(self) -> str:
        """In percent, e.g. `43.10 ± 0.75`; only the mean for a single run, `-` if it is undefined."""
        if np.isnan(self.mean):
            return "-"
        mean = f"{100 * self.mean:.2f}"
        return mean if np.isnan(self.deviation) else f"{mean} ± {100 * self.deviation:.2f}"


def spread(values: Sequence[float]) -> Spread:
    """Mean and standard deviation of a score.

    Args:
        values: The score of each run, in [0, 1]; the mean is nan if one of them is nan.

    Raises:
        ValueError: There is no value.
    """
    if len(values) == 0:
        raise ValueError("no values to summarise")
    array = np.asarray(values, dtype=np.float64)
    deviation = float(array.std(ddof=1)) if len(array) > 1 else float("nan")
    return Spread(float(array.mean()), deviation, len(array))


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Hashable]:
    """Turns nested settings into one level: `{"a": {"b": [1]}}` into `{"a.b": "[1]"}`."""
    flat: dict[str, Hashable] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = str(value)
    return flat


def keys_under(name: str, keys: Iterable[str]) -> list[str]:
    """The flat keys that are `name` or lie within it: `classifier.pcm` of `classifier`."""
    return [key for key in keys if key == name or key.startswith(f"{name}.")]


def distinguishing_keys(settings: Sequence[Mapping[str, Hashable]]) -> list[str]:
    """A few keys whose values distinguish all different settings.

    Chosen greedily: the key that separates most settings comes first; among equal ones a `name`, then the
    least nested.

    Args:
        settings: Flat settings of each run; a missing key counts as a value.

    Returns:
        The keys, empty if all settings are the same.
    """
    several, chosen = varying(settings), list[str]()

    def groups(names: Sequence[str]) -> int:
        return len({tuple(one.get(name) for name in names) for one in settings})

    grouped = groups(several)
    while groups(chosen) < grouped:
        chosen.append(max(several, key=lambda key: groups([*chosen, key])))
    return chosen


def labels(settings: Sequence[Mapping[str, Hashable]], named: Sequence[str] = ()) -> list[str]:
    """Labels the settings of runs with the fewest values that distinguish them from all others.

    That is one value that no other settings have, e.g. `classifier.pcm=False`, if there is one, else the
    values of `distinguishing_keys`.

    Args:
        settings: Flat settings of each run; a missing key is shown as `-`.
        named: Keys, or groups such as `classifier`, whose values come first; further values follow if these
            do not distinguish all settings.

    Returns:
        A label for each run, the same for equal settings; empty if all settings are the same.
    """
    several, first = varying(settings), list[str]()
    for name in named:
        keys = keys_under(name, several)
        first += distinguishing_keys([{key: one.get(key) for key in keys} for one in settings])
    groups: dict[str, list[int]] = {}
    for place, one in enumerate(settings):
        groups.setdefault(_values(one, first), []).append(place)
    result = [""] * len(settings)
    for start, places in groups.items():
        rest = _shortest_labels([settings[place] for place in places])
        for place, label in zip(places, rest, strict=True):
            result[place] = ", ".join(filter(None, (start, label)))
    return result


def _shortest_labels(settings: Sequence[Mapping[str, Hashable]]) -> list[str]:
    keys, several = distinguishing_keys(settings), varying(settings)
    different = {tuple(one.get(key) for key in several): one for one in settings}
    label_of: dict[tuple[Hashable, ...], str] = {}
    for values, one in different.items():
        others = [other for other_values, other in different.items() if other_values != values]
        unique = [key for key in (*keys, *several) if all(other.get(key) != one.get(key) for other in others)]
        label_of[values] = _values(one, (unique[:1] or keys) if others else ())
    return [label_of[tuple(one.get(key) for key in several)] for one in settings]


def _values(one: Mapping[str, Hashable], keys: Sequence[str]) -> str:
    return ", ".join(f"{key}={one.get(key, '-')}" for key in keys)


def varying(settings: Sequence[Mapping[str, Hashable]]) -> list[str]:
    """Keys that have several values, of which a missing key is one: first a `name`, then the least nested."""
    keys = sorted({key for one in settings for key in one})
    several = [key for key in keys if len({one.get(key) for one in settings}) > 1]
    return sorted(several, key=lambda key: (not key.endswith("name"), key.count("."), key))
