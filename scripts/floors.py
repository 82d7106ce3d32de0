"""Prints the minimum versions of all dependencies in pyproject.toml, as constraints for pip.

`make test-minimum` installs these versions and runs some of the tests with them.
"""

import sys
import tomllib
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

from packaging.requirements import Requirement

PROJECT = Path(__file__).parents[1] / "pyproject.toml"


def floors(requirements: Iterable[str]) -> Iterator[str]:
    """Yields `name==version` for each requirement with a minimum version that applies to this machine.

    Args:
        requirements: As in pyproject.toml, e.g. `numpy>=2.0`.

    Raises:
        ValueError: A requirement does not follow PEP 508.
    """
    for requirement in map(Requirement, requirements):
        least = [limit.version for limit in requirement.specifier if limit.operator in {">=", "=="}]
        if least and (requirement.marker is None or requirement.marker.evaluate()):
            yield f"{requirement.name}=={least[0]}"


def main() -> None:
    """Prints one line per package, including those of all extras."""
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    named = chain(project["dependencies"], *project["optional-dependencies"].values())
    sys.stdout.writelines(f"{line}\n" for line in sorted(set(floors(named))))


if __name__ == "__main__":
    main()
