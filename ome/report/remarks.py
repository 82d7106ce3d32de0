"""Remarks on a run's counts: classes that cannot be learnt, distinguished or trusted."""

from collections.abc import Iterator, Mapping
from itertools import combinations
from pathlib import Path
from typing import Any, Final

from ome.data.names import RARE
from ome.files import read_csv, read_json

TOGETHER: Final = 0.95
"""Share of the tiles of each of two classes that show the other, from which on they count as one."""

COMMON: Final = 0.9
"""Share of the tiles that show a class from which on it is pointed out."""

DOUBTFUL: Final = 0.5
"""Share of pixels without any weight from which on it is pointed out."""


def remarks(labels: Path, pseudo: Mapping[str, Any] | None) -> list[str]:
    """Sentences about the tags and the pseudo masks of a run; none where nothing stands out.

    Args:
        labels: Folder of the stage.
        pseudo: Counts in the manifest of the stage, where it is there.
    """
    summary = read_json(labels / "labels.json")
    overlap = {row["class"]: row for row in read_csv(labels / "cooccurrence.csv")}
    counts, tiles = summary["kept_tiles_with_class"], summary["kept_train_tiles"]
    return [*_of_classes(counts, tiles), *_of_pairs(counts, overlap), *_of_weights(pseudo or {})]


def _of_classes(counts: Mapping[str, int], tiles: int) -> Iterator[str]:
    for name, count in counts.items():
        if count == 0:
            yield f"{name}: no tile trains it, so it is never predicted"
        elif count <= RARE:
            yield f"{name}: {count} of {tiles} tiles, too few to learn it from"
        elif count == tiles:
            yield f"{name}: in every tile, so the tags do not say where it is not"
        elif count >= COMMON * tiles:
            yield f"{name}: in {count} of {tiles} tiles, so the tags hardly say where it is not"


def _of_pairs(counts: Mapping[str, int], overlap: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    for first, second in combinations([name for name, count in counts.items() if count > RARE], 2):
        shares = float(overlap[first][second]), float(overlap[second][first])
        if min(shares) >= TOGETHER:
            always = "always" if min(shares) == 1 else "nearly always"
            yield f"{first} and {second} {always} come together: tags alone cannot tell them apart"


def _of_weights(pseudo: Mapping[str, Any]) -> Iterator[str]:
    if (share := pseudo.get("zero_weight", 0.0)) > DOUBTFUL:
        yield f"{100 * share:.0f} % of the pixels of the pseudo masks have weight 0: the CAMs are unsure"
