"""The options of `ome tags FOLDER`."""

import argparse
from collections.abc import Sequence
from typing import Final

from ome.arguments import Arguments
from ome.data.scaling import Limits

PORT: Final = 8765

DESCRIPTION: Final = """
Serves a web page on this machine for tagging the images of a folder with the keyboard. It writes the table
that ome train FOLDER reads.
"""


def parser() -> Arguments:
    """The parser of the words after `ome tags`."""
    parser = Arguments("ome tags", DESCRIPTION)
    parser.add_argument("folder", help="GeoTIFF, PNG or JPEG images, 8 or 16 bits, any number of bands")
    parser.add_argument("--table", help="the CSV file to write or to continue (FOLDER/tags.csv)")
    parser.add_argument("--classes", type=_names, default=(), help="further classes, e.g. road,water")
    parser.add_argument("--tile", type=int, help="tag windows of this many pixels instead of whole images")
    parser.add_argument(
        "--suggestions", help="the file of ome suggest RUN: runs/NAME/suggest/suggestions.csv"
    )
    parser.add_argument(
        "--bands", type=_bands, default=(), help="bands to show, e.g. 4,3,2 (the first three)"
    )
    parser.add_argument("--range", type=_range, help="16-bit values shown black and white, e.g. 0,4095")
    parser.add_argument("--port", type=_port, default=PORT, help=f"0 for any free port ({PORT})")
    return parser


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _numbers(text: str, counts: Sequence[int], least: int, most: int, remedy: str) -> tuple[int, ...]:
    """Parses numbers separated by commas.

    Args:
        text: The argument.
        counts: Allowed counts of numbers.
        least: Smallest allowed number.
        most: Largest allowed number.
        remedy: What to type instead, for the error.

    Raises:
        ArgumentTypeError: The argument has another form.
    """
    words = [word.strip() for word in text.split(",")]
    numbers = tuple(int(word) for word in words if word.isascii() and word.isdecimal())
    if (
        len(numbers) != len(words)
        or len(words) not in counts
        or not least <= min(numbers) <= max(numbers) <= most
    ):
        raise argparse.ArgumentTypeError(f"{text!r}: {remedy}")
    return numbers


def _bands(text: str) -> tuple[int, ...]:
    return _numbers(text, (1, 3), 1, 1 << 16, "give one band or three, e.g. 4,3,2")


def _port(text: str) -> int:
    return _numbers(text, (1,), 0, (1 << 16) - 1, "give a port from 0 to 65535, 0 for any free one")[0]


def _range(text: str) -> Limits:
    remedy = "give two values from 0 to 65535, the lower first, e.g. 0,4095"
    low, high = _numbers(text, (2,), 0, (1 << 16) - 1, remedy)
    if low >= high:
        raise argparse.ArgumentTypeError(f"{text!r}: {remedy}")
    return low, high
