"""All results of a run -> a table on the terminal, and an HTML page with charts and pictures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from ome.config.sections import scene_reader
from ome.data.scene_index import SceneIndex
from ome.distributed.collectives import is_rank_zero
from ome.files import write_csv, write_json, write_text
from ome.pipeline.artifacts import inherited_runs
from ome.pipeline.layout import CAM_TITLES, PAGE, PSEUDO_MASK, SEGMENTER_TITLES
from ome.pipeline.manifest import Manifest
from ome.pipeline.stage import Stage, Work
from ome.plots.charts import duration_bars
from ome.progress import console
from ome.report import contents, gallery, histories, mask_quality, provenance
from ome.report.map_areas import predicted_scenes
from ome.report.page import encode_layered, legend, write_page
from ome.report.paper import write_figures
from ome.report.pictures import draw_panels
from ome.report.remarks import remarks
from ome.scoring.rows import Row, read_rows, write_rows
from ome.scoring.tables import RatioOf, csv_table, markdown_table, score_table

SCORED = ("cam", "affinity", "pseudo", "seg", "refine")

SECTIONS = {
    "scores": "Scores",
    "tags": "Tags",
    "tiles": "From tags to pseudo masks",
    "maps": "Maps",
    "areas": "Areas",
    "uncertainty": "Does a low weight mean a wrong pixel?",
    "worst": "The worst tiles",
    "ablation": "Variants of the pseudo masks",
    "training": "Training",
    "time": "Time of each stage",
    "again": "Commands, inputs and versions",
}
"""Titles of the page's sections by their anchors, in order."""


def run(work: Work) -> dict[str, Any]:
    """Collects the rows of all stages in one table, and writes the page."""
    if not is_rank_zero():
        return {}
    index = SceneIndex.read(work.inputs["prepare"])
    reader = scene_reader(work.config, index)
    rows = _rows(work)
    scores = {row.name: row.scores for row in rows}
    write_json(work.folder / "results.json", {name: one.to_dict() for name, one in scores.items()})
    if rows:
        write_csv(work.folder / "results.csv", *csv_table(scores, ratio_of=_ratio_of(rows)))
        write_text(work.folder / "results.md", markdown_table(scores, ratio_of=_ratio_of(rows)))
    shown = gallery.collect(work, reader)
    write_page(work.folder / PAGE, _content(work, index, rows, shown))
    draw_panels(work.folder, shown, index.palette.classes)
    if work.settings.figures:
        write_figures(work.folder / "figures", work.inputs, rows, _compared(rows), shown.errors)
    return {"rows": len(rows), **{name: len(group) for name, group in shown.layered_tiles.items()}}


def show(config: DictConfig, folder: Path) -> None:
    """Prints the results table of a finished report and the path of its page."""
    if not is_rank_zero():
        return
    if rows := read_rows(folder):
        title = f"{Path(config.run_dir).name}, in percent; {_scored_on(rows)}"
        scores = {row.name: row.scores for row in rows}
        console.print(score_table(scores, title=title, ratio_of=_ratio_of(rows)))
    console.print(f"report: {(folder / PAGE).resolve()}")


def _rows(work: Work) -> list[Row]:
    """Writes and returns the rows of all stages, in the order of the stages; the upper bound is the last."""
    rows = [row for name in SCORED if name in work.inputs for row in read_rows(work.inputs[name])]
    order = (CAM_TITLES["cam"], PSEUDO_MASK, *SEGMENTER_TITLES.values())
    rows.sort(key=lambda row: next(place for place, name in enumerate(order) if row.name.startswith(name)))
    write_rows(work.folder, rows)
    return rows


def _ratio_of(rows: Sequence[Row]) -> RatioOf | None:
    """The last weak segmenter and the upper bound; None if one of them is missing."""
    weak = [row.name for row in rows if row.name.startswith(SEGMENTER_TITLES["weak"])]
    full = [row for row in rows if row.name == SEGMENTER_TITLES["full"]]
    return RatioOf(weak[-1], full[0].name, full[0].note) if weak and full else None


def _compared(rows: Sequence[Row]) -> list[Row]:
    """The rows whose confusion matrices are shown: those of `_ratio_of`, or the last."""
    return [row for row in rows if row.name in (_ratio_of(rows) or (rows[-1].name,))[:2]]


def _scored_on(rows: list[Row]) -> str:
    """The names of the rows, by the data that they are scored on."""
    places: dict[str, list[str]] = {}
    for row in rows:
        places.setdefault(row.where, []).append(row.name)
    return "; ".join(f"on {place}: {', '.join(names)}" for place, names in places.items())


def _content(work: Work, index: SceneIndex, rows: list[Row], shown: gallery.Gallery) -> dict[str, Any]:
    """The variables of the page's template."""
    manifests = {name: Manifest.read(path) for name, path in work.inputs.items()}
    stages_done = {name: record for name, record in manifests.items() if record is not None}
    labels = work.inputs["labels"]
    content: dict[str, Any] = {
        "title": f"ome: {Path(work.config.run_dir).name}",
        "facts": _facts(work, index, stages_done),
        "scores": contents.table(*csv_table({row.name: row.scores for row in rows})) if rows else None,
        "no_scores": (
            "no stage that computes scores has finished"
            if _has_masks(index)
            else "there are no reference masks"
        ),
        "scored_on": _scored_on(rows),
        "cards": contents.score_cards(rows, _ratio_of(rows)) if rows else {},
        "class_bars": contents.class_bars(rows) if rows else {},
        "confusions": contents.confusions(_compared(rows)),
        "remarks": remarks(
            labels, stages_done["pseudo"].counts if "pseudo" in stages_done else None, work.inputs.get("cam")
        ),
        "tags": contents.tag_bars(labels),
        "tag_scores": contents.tag_scores(work.inputs["cam"]) if "cam" in work.inputs else None,
        "cooccurrence": contents.cooccurrence_map(labels),
        "legend": legend(index.palette.classes),
        "layered_tiles": encode_layered(shown.layered_tiles),
        "areas": shown.areas,
        "uncertainty": mask_quality.uncertainty(shown.errors, shown.scored_on),
        "worst": shown.worst,
        "ablation": mask_quality.ablation(work.inputs["ablation"]) if "ablation" in work.inputs else None,
        "trainings": histories.charts(work.inputs),
        "times": duration_bars({name: record.seconds for name, record in stages_done.items()}),
        "commands": provenance.commands(*inherited_runs(work.config), Path(work.config.run_dir)),
        "inputs": provenance.describe_inputs(work.config, stages_done),
        "versions": provenance.version_rows(stages_done),
        "settings": provenance.settings_rows(stages_done),
    }
    return content | {"sections": _sections(content)}


def _sections(content: Mapping[str, Any]) -> dict[str, str]:
    """Titles of the sections that are not empty."""
    empty = {
        "tiles": not content["layered_tiles"]["tiles"],
        "maps": not content["layered_tiles"]["maps"],
        "training": not content["trainings"],
        **{name: not content[name] for name in ("areas", "uncertainty", "worst", "ablation")},
    }
    return {name: title for name, title in SECTIONS.items() if not empty.get(name)}


def _facts(work: Work, index: SceneIndex, stages_done: Mapping[str, Manifest]) -> dict[str, str]:
    """Dataset, networks, seed and stages of the run, as the stages recorded them."""

    def recorded(key: str) -> str:
        return str(provenance.recorded(stages_done, work.config, key))

    dataset = work.config.dataset
    reference = f"reference {dataset.reference}" if _has_masks(index) else "no reference masks"
    splits = {name: len(index.split(name)) for name in ("train", "val", "test")}
    scenes = ", ".join(f"{number} {name}" for name, number in splits.items() if number)
    lacking = [name for name in ("cam", "pseudo", "seg") if name not in stages_done]
    return {
        "dataset": f"{dataset.name}, bands {dataset.bands}, {reference}",
        "scenes": scenes,
        "classes": ", ".join(index.palette.names),
        "classifier": f"{recorded('classifier.name')} on {recorded('backbone.name')}",
        "segmenter": f"{recorded('segmenter.name')} on {recorded('segmenter.encoder')}",
        "seed": recorded("seed"),
        "stages": ", ".join(stages_done) + (f"; not yet {', '.join(lacking)}" if lacking else ""),
        "finished": f"{provenance.finish_time(work.inputs):%Y-%m-%d %H:%M} UTC",
    }


def _has_masks(index: SceneIndex) -> bool:
    return any(scene.mask for scene in index.scenes)


def _sources(config: DictConfig) -> list[Any]:
    """The maps of stage=predict, which the report reads without requiring that stage."""
    scenes = predicted_scenes(Path(config.run_dir))
    return [[folder.name, manifest.fingerprint] for folder, manifest in scenes.items()]


STAGE = Stage(
    "report",
    run,
    requires=("prepare", "labels"),
    optional_inputs=(*SCORED, "ablation"),
    config_keys=("name", "dataset.channels", "dataset.display", "dataset.tile.size"),
    free_keys=("backbone", "classifier", "dataset", "seed", "segmenter"),  # shown for stages that did not run
    external_files=_sources,
    version=4,
)
