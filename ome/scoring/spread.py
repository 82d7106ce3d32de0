"""Scores of repeated runs: settings that differ between runs, and mean and spread of repetitions."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Spread:
    """A score over several runs.

    Attributes:
        mean: Their mean.
        deviation: Their sample standard deviation (divisor n - 1); nan for a single run.
        runs: Their number, n.
    """

    mean: float
    deviation: float
    runs: int

    def __str__(self) -> str:
        """In percent, e.g. `43.10 ± 0.75`; the mean alone for a single run, `-` where it is undefined."""
        if np.isnan(self.mean):
            return "-"
        mean = f"{100 * self.mean:.2f}"
        return mean if np.isnan(self.deviation) else f"{mean} ± {100 * self.deviation:.2f}"


def spread(values: Sequence[float]) -> Spread:
    """The mean and the spread of a score.

    Args:
        values: The score of each run, in [0, 1]; nan where it is undefined makes the mean nan.

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
    """Keys by whose values alone all different settings can be told apart, few and telling ones.

    Each time the key that tells most settings apart is taken; among equals a `name`, then the least nested.

    Args:
        settings: Flat settings of each run; a key that a run lacks counts as a value of its own.

    Returns:
        The keys, empty where all settings are the same.
    """
    varying, chosen = _varying(settings), list[str]()

    def groups(names: Sequence[str]) -> int:
        return len({tuple(one.get(name) for name in names) for one in settings})

    grouped = groups(varying)
    while groups(chosen) < grouped:
        chosen.append(max(varying, key=lambda key: groups([*chosen, key])))
    return chosen


def labels(settings: Sequence[Mapping[str, Hashable]], named: Sequence[str] = ()) -> list[str]:
    """Names settings by what was varied on purpose, or by the fewest values that tell them from all others.

    The fewest is one value that no other has, `classifier.pcm=False`, where there is one; else those of
    `distinguishing_keys`.

    Args:
        settings: Flat settings of each run; a key that a run lacks shows as `-`.
        named: Keys, or what keys begin with (`classifier`), whose values come first; the fewest others
            follow where these do not tell settings apart.

    Returns:
        A label for each, the same for equal settings; empty where all are the same.
    """
    varying, first = _varying(settings), list[str]()
    for name in named:
        inside = keys_under(name, varying)
        first += distinguishing_keys([{key: one.get(key) for key in inside} for one in settings])
    alike: dict[str, list[int]] = {}
    for place, one in enumerate(settings):
        alike.setdefault(_values(one, first), []).append(place)
    titles = [""] * len(settings)
    for start, places in alike.items():
        rest = _fewest([settings[place] for place in places])
        for place, label in zip(places, rest, strict=True):
            titles[place] = ", ".join(filter(None, (start, label)))
    return titles


def _fewest(settings: Sequence[Mapping[str, Hashable]]) -> list[str]:
    keys, varying = distinguishing_keys(settings), _varying(settings)
    kinds = {tuple(one.get(key) for key in varying): one for one in settings}
    titles: dict[tuple[Hashable, ...], str] = {}
    for kind, one in kinds.items():
        others = [other for groups_of, other in kinds.items() if groups_of != kind]
        different = [
            key for key in (*keys, *varying) if all(other.get(key) != one.get(key) for other in others)
        ]
        titles[kind] = _values(one, (different[:1] or keys) if others else ())
    return [titles[tuple(one.get(key) for key in varying)] for one in settings]


def _values(one: Mapping[str, Hashable], keys: Sequence[str]) -> str:
    return ", ".join(f"{key}={one.get(key, '-')}" for key in keys)


def _varying(settings: Sequence[Mapping[str, Hashable]]) -> list[str]:
    """Keys that have several values: first a `name`, then the least nested."""
    keys = sorted({key for one in settings for key in one})
    varying = [key for key in keys if len({one.get(key) for one in settings}) > 1]
    return sorted(varying, key=lambda key: (not key.endswith("name"), key.count("."), key))
