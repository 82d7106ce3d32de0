"""Remarks on a run's tags and pseudo masks: classes that can hardly be learnt, and unreliable masks."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, Final

from ome.data.names import RARE
from ome.data.tile_choices import ENOUGH
from ome.files import read_csv, read_json
from ome.pipeline.layout import COOCCURRENCE, TAG_SCORES, TAG_SUMMARY

TOGETHER: Final = 0.95
"""Two classes cannot be distinguished if at least this fraction of the tiles of each also has the other."""

COMMON: Final = 0.9
"""A class is reported as common if at least this fraction of the tiles has it."""

DOUBTFUL: Final = 0.5
"""Pseudo masks are reported as unreliable if more than this fraction of their pixels has weight 0."""


def remarks(labels: Path, pseudo: Mapping[str, Any] | None, cam: Path | None = None) -> list[str]:
    """Sentences about problems with the tags, the classifier and the pseudo masks of a run.

    Args:
        labels: Folder of stage labels.
        pseudo: Counts in the manifest of stage pseudo; None if it did not run.
        cam: Folder of stage cam; None if it did not run.
    """
    summary = read_json(labels / TAG_SUMMARY)
    cooccurrence = {row["class"]: row for row in read_csv(labels / COOCCURRENCE)}
    counts = summary["kept_tiles_with_class"]
    of_classes = [*_of_classes(summary), *_of_few(summary)]
    scored = read_csv(cam / TAG_SCORES) if cam and (cam / TAG_SCORES).exists() else []
    pairs = _of_pairs(counts, cooccurrence)
    return [*of_classes, *pairs, *_of_classifier(scored), *_of_masks(counts, pseudo or {})]


def _of_classes(summary: Mapping[str, Any]) -> Iterator[str]:
    for name, count in summary["kept_tiles_with_class"].items():
        tiles = summary["tiles_that_teach_class"][name]
        if count == 0 and (shown := summary["tiles_with_class"][name]):
            yield f"{name}: too small to learn from in all {shown} training tiles that show it"
        elif count == 0:
            yield f"{name}: not in any training tile, so it is never predicted"
        elif count <= RARE:
            yield f"{name}: {count} of {tiles} tiles, too few to learn it from"
        elif count == tiles:
            yield f"{name}: in every tile, so the tags do not show where it is absent"
        elif count >= COMMON * tiles:
            yield f"{name}: in {count} of {tiles} tiles, so the tags hardly show where it is absent"


def _of_few(summary: Mapping[str, Any]) -> Iterator[str]:
    """One sentence for all classes in few tiles: in a small run, all of them are."""
    few = [
        f"{name} ({count})"
        for name, count in summary["kept_tiles_with_class"].items()
        if RARE < count < ENOUGH
    ]
    if few:
        yield f"in fewer than {ENOUGH} tiles, so easily confused: {', '.join(few)}"


def _of_pairs(counts: Mapping[str, int], cooccurrence: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    for first, second in combinations([name for name, count in counts.items() if count > RARE], 2):
        fraction = min(float(cooccurrence[first][second]), float(cooccurrence[second][first]))
        if fraction >= TOGETHER:
            always = "always" if fraction == 1 else "nearly always"
            yield f"{first} and {second} {always} occur together: tags alone cannot distinguish them"


def _of_classifier(scored: Sequence[Mapping[str, str]]) -> Iterator[str]:
    """One sentence if all tiles of val get the same tags although theirs differ."""
    if not scored:
        return
    tiles = int(scored[0]["tiles"])
    differ, varies = (any(0 < int(row[key]) < tiles for row in scored) for key in ("shown", "given"))
    if differ and not varies:
        given = ", ".join(row["class"] for row in scored if int(row["given"])) or "none"
        yield (
            f"the classifier says the same of every image: all {tiles} tiles of val get the tags {given}; "
            "train it longer (stage.cam.epochs), or tag more images"
        )


def _of_masks(counts: Mapping[str, int], pseudo: Mapping[str, Any]) -> Iterator[str]:
    for name, pixels in pseudo.get("mask_pixels", {}).items():
        if pixels == 0 and counts[name]:
            yield f"{name}: no pixel of the pseudo masks has it, so the segmenter cannot learn it"
    if (fraction := pseudo.get("zero_weight", 0.0)) > DOUBTFUL:
        percent = f"{100 * fraction:.0f} %"
        yield f"{percent} of the pixels of the pseudo masks have weight 0: the CAMs are uncertain"
