"""The arguments of the commands `ome train IMAGES`, `ome predict RUN SCENE` and so on."""

from pathlib import Path

from ome.arguments import Arguments


def parsers() -> dict[str, Arguments]:
    """The parser of each command."""
    commands: dict[str, Arguments] = {}

    def command(name: str, summary: str, setting: str) -> Arguments:
        note = (
            f"Any setting may follow as KEY=VALUE, such as {setting}; python -m ome.run --help lists them. "
            "With plan=true it only prints the stages, their work, and an estimate of the time that it takes."
        )
        commands[name] = Arguments(f"ome {name}", summary, note)
        return commands[name]

    train = command(
        "train",
        "Trains on a folder of images and a table of their tags, up to the report.",
        "preset=quick (few, laptop, gpu, paper)",
    )
    train.add_argument("images", type=Path, help="folder of GeoTIFF, PNG or JPEG images")
    train.add_argument("--tags", type=Path, help="table of tags; default: IMAGES/tags.csv or tags.xlsx")
    train.add_argument("--masks", type=Path, help="folder of reference masks, if there are any")
    train.add_argument("--name", help="name of the run; default: name of the folder of images")
    train.add_argument("--config-dir", type=Path, help="folder of YAML files of your own, see docs/extend.md")
    resume = command(
        "resume", "Continues an interrupted run, up to the report, with its own settings.", "trainer=cpu"
    )
    resume.add_argument("run", type=Path, help="folder of the run, such as runs/valley")
    predict = command(
        "predict",
        "Maps a scene, or every scene of a folder, a list or a pattern, with the segmenter of a run.",
        "prediction.tta=d4 (the mean of all eight orientations)",
    )
    predict.add_argument(
        "run",
        nargs="+",
        type=Path,
        help="folder of the run, such as runs/valley; with several runs their probabilities are averaged",
    )
    predict.add_argument(
        "scene",
        help="GeoTIFF, PNG, JPEG, JPEG 2000 or VRT of any size, folder of them, URL (https://, s3://, "
        "/vsizip/...) of one or of a STAC item, list of scenes (.txt, one a line), or a quoted pattern "
        "such as '/data/*.tif'",
    )
    predict.add_argument("--name", help="name of the map, or of the tables of a list; default: its name")
    for option, meaning in (
        ("confidence", "also write the probability of the class on the map"),
        ("probabilities", "also write the probability of every class"),
        ("polygons", "also write a GeoPackage of areas of one class"),
    ):
        predict.add_argument(f"--{option}", action="store_true", help=meaning)
    report = command("report", "Rewrites the report of a run.", "stage.report.figures=false")
    report.add_argument("run", type=Path, help="folder of the run, such as runs/valley")
    suggest = command(
        "suggest",
        "Suggests tags by the classifier of a run, for ome tags --suggestions.",
        "trainer=cpu",
    )
    suggest.add_argument("run", type=Path, help="folder of the run, such as runs/valley")
    export = command(
        "export", "Writes the segmenter of a run as ONNX and torch.export.", "stage.export.network=full"
    )
    export.add_argument("run", type=Path, help="folder of the run, such as runs/valley")
    export.add_argument("--target", metavar="PROGRAM", help="deepness: also a model for that QGIS plug-in")
    compare = command(
        "compare",
        "Puts the scores of finished runs into one table, seeds as mean and spread.",
        "stage.compare.settings=[classifier] (names the rows)",
    )
    compare.add_argument("runs", nargs="+", help="folders of runs, or patterns such as 'runs/valley_*'")
    for form in ("markdown", "latex"):
        compare.add_argument(
            f"--{form}", dest="format", action="store_const", const=form, help=f"print the table in {form}"
        )
    return commands
