"""The tables that are written beside the maps of a list of scenes."""

import os
from collections.abc import Mapping
from pathlib import Path

from ome.errors import UserError
from ome.files import read_json_if_whole, write_json, write_text
from ome.geo.scene_list import name_of_list
from ome.inference.area_tables import Counts, write_total_areas
from ome.pipeline.artifacts import another_place
from ome.pipeline.layout import AREAS
from ome.progress import console


class ListTables:
    """`<name>_areas.csv` and `<name>_failed.txt`, and a mark of the list that they are of.

    Args:
        folder: Folder of the maps.
        text: The list of scenes or the pattern, as typed.
        name: Name of the tables; None for that of the list, see `name_of_list`.
    """

    def __init__(self, folder: Path, text: str, name: str | None) -> None:
        name = name or name_of_list(text)
        self._list = str(Path(text).absolute())
        self._from_here = os.path.relpath(self._list, folder.absolute())
        self._areas, self._failures = folder / f"{name}{AREAS}", folder / f"{name}_failed.txt"
        self._mark = folder / f".{name}_areas.json"

    def check(self) -> None:
        """Refuses to replace files that are not the tables of this list.

        Raises:
            UserError: There are such files.
        """
        existing = [path for path in (self._areas, self._failures) if path.exists()]
        mark = read_json_if_whole(self._mark) or {}
        if existing and self._list != mark.get("list") and self._from_here != mark.get("from_here"):
            whose = (
                f"is of {mark['list']}" if "list" in mark else "was not written by ome for a list of scenes"
            )
            raise UserError(
                f"{existing[0]} {whose}, and the maps of {self._list} would replace it: move it away, or "
                f"give the tables another {another_place('predict')}"
            )

    def write(self, counts: Mapping[str, Counts], failed: Mapping[str, str]) -> None:
        """Writes the areas of all maps, and a list of the failed scenes that `predict` can read again.

        Args:
            counts: See `write_total_areas`, by scene.
            failed: Reason of each scene that failed.

        Raises:
            UserError: See `check`.
        """
        self.check()
        # The path from here stays the same where a project moves.
        write_json(self._mark, {"list": self._list, "from_here": self._from_here})
        for path in (self._areas, self._failures):
            path.unlink(missing_ok=True)
        write_total_areas(self._areas, counts)
        if failed:
            lines = [line for scene, reason in failed.items() for line in (f"# {reason}", scene)]
            write_text(self._failures, "\n".join(lines) + "\n")
            console.print(f"scenes that failed: {self._failures}")
