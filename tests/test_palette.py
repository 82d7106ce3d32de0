import numpy as np
import pytest

from ome.data.palette import MAX_LISTED, Palette, UnknownColours
from ome.errors import UserError
from ome.ignore import IGNORE

PALETTE = Palette(
    {"road": (255, 255, 255), "roof": (0, 0, 255), "tree": (0, 255, 0)}, {"clutter": (255, 0, 0)}
)


def test_encode_maps_every_colour_by_the_order_of_the_classes() -> None:
    colours = np.array([[(255, 255, 255), (0, 0, 255)], [(0, 255, 0), (255, 0, 0)]], dtype=np.uint8)
    encoded = PALETTE.encode(colours)
    assert encoded.mask.tolist() == [[0, 1], [2, IGNORE]]
    assert encoded.mask.dtype == np.uint8
    assert encoded.unknown == {}


def test_unknown_colours_are_ignored_and_counted_never_matched_to_the_nearest() -> None:
    colours = np.array([[(255, 255, 254), (255, 255, 254), (0, 0, 255), (1, 2, 3)]], dtype=np.uint8)
    encoded = PALETTE.encode(colours)
    assert encoded.mask.tolist() == [[IGNORE, IGNORE, 1, IGNORE]]
    assert encoded.unknown == {(255, 255, 254): 2, (1, 2, 3): 1}


def test_encode_agrees_with_a_pixelwise_search() -> None:
    rng = np.random.default_rng(0)
    colours = rng.choice([0, 254, 255], (37, 23, 3)).astype(np.uint8)
    names = list(PALETTE.classes.values())
    expected = [
        [names.index(tuple(c)) if tuple(c) in names else IGNORE for c in row] for row in colours.tolist()
    ]
    encoded = PALETTE.encode(colours)
    assert encoded.mask.tolist() == expected
    known = [*names, *PALETTE.ignored.values()]
    assert sum(encoded.unknown.values()) == sum(
        tuple(c) not in known for c in colours.reshape(-1, 3).tolist()
    )


def test_decode_inverts_encode_and_paints_the_rest_black() -> None:
    mask = np.array([[0, 1, 2, IGNORE]], dtype=np.uint8)
    assert PALETTE.decode(mask).tolist() == [[[255, 255, 255], [0, 0, 255], [0, 255, 0], [0, 0, 0]]]
    assert len(PALETTE.flat()) == 768
    assert PALETTE.flat()[3:6] == [0, 0, 255]


def test_unknown_colours_are_listed_by_frequency_and_the_rest_summed() -> None:
    counts = {(value, 0, 0): value + 1 for value in range(MAX_LISTED + 5)}
    unknown = UnknownColours.from_counts(counts)
    assert unknown.counts[0] == ((MAX_LISTED + 4, 0, 0), MAX_LISTED + 5)
    assert len(unknown.counts) == MAX_LISTED
    assert unknown.rest == 1 + 2 + 3 + 4 + 5
    twice = UnknownColours.merge([unknown, unknown])
    assert twice.pixels == 2 * sum(counts.values())
    assert twice.counts[0][1] == 2 * (MAX_LISTED + 5)
    assert str(UnknownColours.from_counts({(1, 2, 3): 4})) == "1,2,3 (4 px)"


@pytest.mark.parametrize(
    ("classes", "ignored", "message"),
    [
        ({"a": (0, 0, 0), "b": (0, 0, 0)}, {}, "b and a have the same colour"),
        ({"a": (0, 0, 0)}, {"b": (0, 0, 0)}, "b and a have the same colour"),
        ({"a": (0, 0, 256)}, {}, "colour of a"),
        ({"a": (0, 0, 0)}, {"a": (0, 0, 1)}, "a is in dataset.classes and dataset.ignored"),
        ({}, {}, "names 0 classes"),
    ],
)
def test_contradictory_palettes_are_refused(
    classes: dict[str, tuple[int, int, int]], ignored: dict[str, tuple[int, int, int]], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        Palette(classes, ignored)
