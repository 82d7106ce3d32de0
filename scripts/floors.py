"""Prints the least version of everything that pyproject.toml names, as constraints for pip.

`make test-minimum` installs these and runs a part of the tests, so that no floor stands there untried.
"""

import sys
import tomllib
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

from packaging.requirements import Requirement

PROJECT = Path(__file__).parents[1] / "pyproject.toml"


def floors(requirements: Iterable[str]) -> Iterator[str]:
    """Yields `name==version` for each requirement that has a least version, and applies here.

    Args:
        requirements: As in pyproject.toml, e.g. `numpy>=2.0`.

    Raises:
        ValueError: One is not written as PEP 508 says.
    """
    for requirement in map(Requirement, requirements):
        least = [limit.version for limit in requirement.specifier if limit.operator in {">=", "=="}]
        if least and (requirement.marker is None or requirement.marker.evaluate()):
            yield f"{requirement.name}=={least[0]}"


def main() -> None:
    """Prints one line for each package, those of all extras among them."""
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    named = chain(project["dependencies"], *project["optional-dependencies"].values())
    sys.stdout.writelines(f"{line}\n" for line in sorted(set(floors(named))))


if __name__ == "__main__":
    main()
