"""The value of pixels without a class, in every mask and class map."""

from typing import Final

IGNORE: Final = 255
"""Neither trained on nor scored: clutter, boundaries, unknown colours, nodata."""
