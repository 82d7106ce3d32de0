"""Everything that is there -> one table on the terminal, and one page with pictures."""

import base64
import html
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.table import Table

from ome.data.scenes import SceneIndex
from ome.files import write_csv, write_json, write_text
from ome.progress import console
from ome.scoring.tables import RatioOf, csv_table, markdown_table, score_table
from ome.stages.manifest import Manifest
from ome.stages.pictures import draw_pictures
from ome.stages.provenance import describe_inputs
from ome.stages.scored import Row, read_rows, write_rows
from ome.stages.seg import TITLES
from ome.stages.settings import scene_reader
from ome.stages.stage import Stage, Work
from ome.training.distributed import is_leader

SCORED = ("cam", "affinity", "pseudo", "seg", "refine")
PAGE = "report.html"

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }}
img {{ max-width: 100%; background: white; }}
pre {{ overflow-x: auto; padding: 1rem; border: 1px solid #8888; border-radius: .4rem; }}
</style>
<h1>{title}</h1>
<h2>Scores</h2>
<p>{scored_on}</p>
<pre>{table}</pre>
{pictures}
<h2>Time of each stage</h2>
<pre>{times}</pre>
<h2>Seed and inputs</h2>
<pre>{inputs}</pre>
<h2>Versions</h2>
<pre>{versions}</pre>
<h2>Configuration</h2>
<pre>{config}</pre>
</html>
"""


def run(work: Work) -> dict[str, Any]:
    """Collects the rows of all stages in one table, draws the pictures, and writes the page."""
    if not is_leader():
        return {}
    index = SceneIndex.read(work.inputs["prepare"])
    rows = _rows(work)
    write_json(work.folder / "results.json", {row.name: row.scores.to_dict() for row in rows})
    text = "no scores: there are no reference masks\n"
    if rows:
        scores = {row.name: row.scores for row in rows}
        write_csv(work.folder / "results.csv", *csv_table(scores, ratio_of=_ratio(rows)))
        text = markdown_table(scores, ratio_of=_ratio(rows))
        write_text(work.folder / "results.md", text)
    pictures = draw_pictures(work, scene_reader(work.config, index), rows)
    _write_page(work, rows, text, pictures)
    return {"rows": len(rows), "pictures": len(pictures)}


def show(config: DictConfig, folder: Path) -> None:
    """Prints the results table of a finished report and the path of its page."""
    rows = read_rows(folder)
    if not is_leader():
        return
    if rows:
        console.print(_terminal_table(config.name, rows))
    console.print(f"report: {(folder / PAGE).resolve()}", highlight=False)


def _terminal_table(name: str, rows: list[Row]) -> Table:
    scores = {row.name: row.scores for row in rows}
    return score_table(scores, title=f"{name}, percent. {_scored_on(rows)}", ratio_of=_ratio(rows))


def _rows(work: Work) -> list[Row]:
    """The rows of all stages, from the CAM to the upper bound, which comes last."""
    rows = [row for name in SCORED if name in work.inputs for row in read_rows(work.inputs[name])]
    order = ("CAM", "pseudo mask", TITLES["weak"], TITLES["full"])
    rows.sort(key=lambda row: next(place for place, name in enumerate(order) if row.name.startswith(name)))
    write_rows(work.folder, rows)
    return rows


def _ratio(rows: list[Row]) -> RatioOf | None:
    """The last weak segmenter against the upper bound, where both are there."""
    weak = [row.name for row in rows if row.name.startswith(TITLES["weak"])]
    full = [row.name for row in rows if row.name == TITLES["full"]]
    return (weak[-1], full[0]) if weak and full else None


def _scored_on(rows: list[Row]) -> str:
    """Says where each row was scored: pseudo masks exist for training tiles only."""
    places: dict[str, list[str]] = {}
    for row in rows:
        places.setdefault(row.where, []).append(row.name)
    return "; ".join(f"on {place}: {', '.join(names)}" for place, names in places.items())


def _write_page(work: Work, rows: list[Row], table: str, pictures: dict[str, Path]) -> None:
    manifests = {name: Manifest.read(path) for name, path in work.inputs.items()}
    found = {name: manifest for name, manifest in manifests.items() if manifest is not None}
    shown = "\n".join(
        f'<h2>{html.escape(title)}</h2>\n<img alt="{html.escape(title)}" src="data:image/png;base64,'
        f'{base64.b64encode(path.read_bytes()).decode()}">'
        for title, path in pictures.items()
    )
    page = _PAGE.format(
        title=html.escape(f"ome: {work.config.name}"),
        scored_on=html.escape(_scored_on(rows)),
        table=html.escape(table),
        pictures=shown,
        times=html.escape("\n".join(f"{name:10} {made.seconds:10.1f} s" for name, made in found.items())),
        inputs=html.escape(describe_inputs(work.config, found)),
        versions=html.escape(OmegaConf.to_yaml({name: made.versions for name, made in found.items()})),
        config=html.escape(OmegaConf.to_yaml(work.config)),
    )
    write_text(work.folder / PAGE, page)


STAGE = Stage(
    "report",
    run,
    needs=("prepare", "labels"),
    uses=SCORED,
    reads=("name", "dataset.channels", "dataset.display"),
)
