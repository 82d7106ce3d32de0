"""Progress of long work."""

import pytest

from ome.progress import pace


@pytest.mark.parametrize(("rate", "said"), [(34.23, "34.2/s"), (1.0, "1.0/s"), (0.025, "40.0 s each")])
def test_work_slower_than_one_a_second_is_given_in_seconds_of_each(rate: float, said: str) -> None:
    assert pace(rate) == said
