"""`ome train`, `predict`, `report` and `compare`, as typed one after the other."""

import os
import shlex
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hydra import compose, initialize_config_module
from omegaconf.errors import InterpolationResolutionError

from ome.cli.command_log import removed_if_refused
from ome.cli.commands import words_of
from ome.data.sheets import OTHERS, SPREADSHEETS
from ome.errors import UserError
from ome.inference.card import SegmenterCard
from ome.pipeline.manifest import Manifest
from ome.tagging import main as tags_main
from tests.conftest import compose_config, forked, run_words
from tests.tagging import write_images
from tests.test_custom import SMALL, write_photographs

LONG = "x" * 300
"""Longer than the name of a file can be."""
QUICK = [override for override in SMALL if not override.startswith(("stage", "name", "output"))]
FEW = ["stage.cam.epochs=1", "stage.cam.batch=2", "stage.cam.export.scales=[1.0]", "dataset.tile.size=64"]


def test_from_images_to_a_map_and_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder with a name that needs quotes, and the map asked for from elsewhere."""
    here, elsewhere = tmp_path / "my (new) folder", tmp_path / "elsewhere"
    monkeypatch.chdir(tmp_path)  # `words_of` changes to the folder of the run's command
    here.mkdir()
    elsewhere.mkdir()
    write_photographs(here)
    status, printed = forked(
        here, "train", "images", "--tags", "tags.csv", "--name", "val ley", *QUICK, *FEW, "dataset.nodata=0"
    )
    assert status == 0, printed
    card = SegmenterCard.read(here / "runs/val ley/seg/weak")
    assert (card.nodata, card.source) == (0, ("uint8", 3, ("red", "green", "blue")))
    assert printed.strip().endswith("map a scene: ome predict 'runs/val ley' SCENE")
    assert "Warning" not in printed  # of a chart without data
    assert "preset=few (others: quick, laptop, gpu, paper)" in printed
    for network in ("classifier", "segmenter (weak segmentation)"):
        assert printed.count(f"the {network} starts from random weights") == 1
    assert (here / "scenes/val ley_all_full/index.json").is_file()
    charts = {path.stem for path in (here / "runs/val ley/report/figures").iterdir()}
    assert charts == {"co-occurrence", "tags", "training_cam", "training_seg_weak"}  # no masks: no errors

    run, scene = here / "runs/val ley", here / "images/photo 3.jpg"
    status, printed = forked(elsewhere, "predict", str(run), str(scene), "--confidence")
    assert status == 0, printed
    assert {path.name for path in (run / "predict/photo 3").glob("*.tif")} == {
        "photo 3.tif",
        "photo 3_confidence.tif",
    }
    status, printed = forked(elsewhere, "predict", str(run), str(here / "images/photo 2.jpg"))
    assert status == 0, printed
    assert not list((run / "predict").rglob("photo 2_confidence.tif"))  # was asked for the other scene

    before = sorted(run.rglob("*"))
    status, printed = forked(elsewhere, "predict", str(run), str(scene), "stage.predict.network=best")
    assert (status, printed.count("stage.predict.network=best")) == (1, 1), printed
    assert sorted(run.rglob("*")) == before  # not even a log, whose settings would pass for the run's
    status, printed = forked(
        elsewhere, "predict", str(run), str(scene), "dataset.channels=[3,2,1]", "force=true"
    )
    assert status == 0, printed
    words = words_of(["predict", str(run), str(scene)])  # what was asked of one map is not asked of the next
    assert not [word for word in words if "channels" in word]

    typo = ["stage=report", "dataset=custom", "dataset.name=val ley", "name=valley"]
    status, printed = forked(here, *typo)
    assert "error: stage=report needs the result of stage=labels" in printed
    assert "did you mean name=val ley? or run the same command with stage=labels first" in printed
    other = Manifest.read(run / "labels")
    assert other is not None
    replace(other, inputs={"prepare": "other scenes"}).write(here / "runs/valley2/labels")
    assert "did you mean name=val ley? or" in forked(here, *typo)[1]
    (run / "report/report.html").write_text("")
    status, printed = forked(elsewhere, "report", str(run), "force=true", "stage.report.figures=false")
    assert status == 0, printed
    assert (run / "report/report.html").stat().st_size > 1000
    assert "<title>ome: val ley</title>" in (run / "report/report.html").read_text(encoding="utf-8")
    assert not [path for path in elsewhere.iterdir() if not path.name.startswith(".printed")]

    status, printed = forked(elsewhere, "suggest", str(run))
    assert status == 0, printed
    typed = shlex.split(printed.partition("the most uncertain images first: ")[2])
    assert typed[:4] == ["ome", "tags", str(here / "images"), "--suggestions"]
    assert Path(typed[4]) == run / "suggest/suggestions.csv"
    assert Path(typed[4]).is_file()
    assert typed[5:] == ["--table", str(here / "tags.csv")]

    status, printed = forked(elsewhere, "compare", str(run))
    assert "has scores: the stages cam, affinity" in printed


def test_an_unfinished_run_says_how_it_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_photographs(tmp_path)
    train = ["train", "images", "--tags", "tags.csv", "--name", "a b", *QUICK, *FEW, "stage.until=labels"]
    status, printed = forked(tmp_path, *train, "preset=quick")
    assert status == 0, printed
    assert "was made with preset" not in printed
    scene = str(next((tmp_path / "images").iterdir()))
    status, printed = forked(tmp_path, "predict", "runs/a b", scene)
    assert status == 1
    assert f"continue the run first: ome resume '{tmp_path}/runs/a b'" in printed
    status, printed = forked(tmp_path, "report", "runs/a b")
    assert status == 0, printed
    page = (tmp_path / "runs/a b/report/report.html").read_text()
    assert "prepare, labels; not yet cam, pseudo, seg" in page
    assert words_of(["resume", "runs/a b"])[-1] == "stage=all"
    status, printed = forked(tmp_path, "resume", "runs/a b", "stage.until=labels")
    assert status == 0, printed
    assert "up to date labels: " in printed
    status, printed = forked(tmp_path, *train)
    assert (status, "runs/a b was made with preset=quick: type preset=quick" in printed) == (0, True), printed


def test_files_of_ones_own_in_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A callback beside the images, and a map from elsewhere, which needs it no more than its settings do."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])  # as of the script `ome`
    (here := tmp_path / "here").mkdir()
    write_photographs(here)
    (here / "quiet.py").write_text("from pytorch_lightning import Callback\n\n\nclass Quiet(Callback): ...\n")
    (here / "mine/callbacks").mkdir(parents=True)
    (here / "mine/callbacks/quiet.yaml").write_text("quiet: {_target_: quiet.Quiet}\n")
    settings = ["--config-dir", "mine", *QUICK, *FEW, "callbacks=quiet", "stage.until=labels"]
    status, printed = forked(here, "train", "images", "--tags", "tags.csv", "--name", "a", *settings)
    assert status == 0, printed
    status, printed = forked(tmp_path, "report", "here/runs/a")
    assert status == 0, printed


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["tarin", "images"], "error: unknown command 'tarin': did you mean train? choose one of tags"),
        (
            ["train", "nowhere", "--epochs", "3"],
            "error: ome train does not know --epochs: ome train --help lists",
        ),
        (["train", "x", "--nam", "a"], "ome train does not know --nam; did you mean --name? ome train --h"),
        (["predict", "a", "b", "--conf"], "ome predict does not know --conf; did you mean --confidence?"),
        (["tags", "x", "--class", "a,b"], "ome tags does not know --class; did you mean --classes? ome tags"),
        (["tags", "x", "--sugg=a"], "ome tags does not know --sugg; did you mean --suggestions? ome"),
        *(
            ([*words, option, "a"], f"ome {words[0]} does not know {option}; did you mean --name? ome")
            for words in (["train", "x"], ["predict", "a", "b"])
            for option in ("-o", "--out", "--output", "--output-dir")
        ),
        (["report", "a", "--output", "b"], "ome report does not know --output: ome report --help lists"),
        (
            ["tags", "images", "--suggestions", "none.csv"],
            "none.csv does not exist: run ome suggest RUN, and",
        ),
        (["suggest", "images", "my"], "my is a word too many: type ome suggest RUN, a path"),
        (["suggest", "images"], "images is not the folder of a run: give one such as runs/valley"),
        (["tags", "x", "--zzz", "a"], "error: ome tags does not know --zzz: ome tags --help lists options"),
        (["--multi", "stage=labels"], "unknown option --multi; did you mean --multirun?"),
        (
            ["train", "a.tif"],
            "a.tif is a file, not a folder: put it alone into one, tag its windows (ome tags",
        ),
        (["train", "nowhere"], "error: nowhere does not exist: give the folder of the images"),
        (
            ["train", "images"],
            "the table of tags images/tags.csv does not exist: fill one with ome tags images",
        ),
        (["train", "a (b)"], "does not exist: fill one with ome tags 'a (b)' --classes NAME,NAME"),
        (["report", "broken run"], "settings of the run and run_dir='broken run'"),
        (["stage=report", "run_dir=a sweep"], "stage.compare.runs='a sweep/*' for the table of its runs"),
        (["stage=report", "run_dir=a sweep"], "or run_dir='a sweep/0_...' for one"),
        (["train"], "ome train: the following arguments are required: images: type ome train IMAGES; ome"),
        (["predict", "images"], "arguments are required: scene: type ome predict RUN SCENE; ome predict --"),
        (["predict", "a", "broken run"], "error: broken run is the folder of a run: type the scene, or"),
        (["resume"], "ome resume: the following arguments are required: run: type ome resume RUN; ome re"),
        (["report"], "ome report: the following arguments are required: run: type ome report RUN; ome re"),
        (["export"], "ome export: the following arguments are required: run: type ome export RUN; ome ex"),
        (["compare"], "ome compare: the following arguments are required: runs: type ome compare RUNS; o"),
        (["tags"], "ome tags: the following arguments are required: folder: type ome tags FOLDER; ome tags"),
        (
            ["stage=labels", "--config-dir", "nowhere"],
            "/nowhere' not found: give --config-dir the folder that h",
        ),
        (["help", "tarin"], "error: unknown command 'tarin': did you mean train? choose one of tags"),
        (["predict", "runs/a", "images"], "error: runs/a does not exist: give the folder of a run"),
        (["predict", "a.tif", "images"], "error: a.tif is a file, not a folder: give the folder of a run"),
        (["predict", "images", "a.tif", "b.tif"], "a.tif is a file, not a run, and the last word alone is"),
        (["predict", "images", "images/c.png", "images/d.png"], "type a quoted pattern, 'images/*.png', a"),
        (["predict", "images", "x", "--name"], "ome predict: argument --name: expected one argument: type"),
        *(
            ([command, "images", "my", "house"], f"my is a word too many: type ome {command} {takes}, a path")
            for command, takes in (
                ("train", "IMAGES"),
                ("tags", "FOLDER"),
                ("report", "RUN"),
                ("resume", "RUN"),
                ("export", "RUN"),
            )
        ),
        (["predict", "images", "x.tif"], "error: x.tif does not exist: give a raster, or a folder of them"),
        (["report", "images"], "error: images is not the folder of a run: give one such as runs/valley"),
        (["predict", "images", "-b.tif"], "error: ome predict does not know -b.tif: ome predict --help"),
        (["predict", "images", "-a.tif"], "images is not the folder of a run"),
        (["predict", "images", "-a(1).tif"], "images is not the folder of a run"),
        (["predict", "-images", "--a.tif"], "-images is not the folder of a run"),
        (["train", "--", "-b"], "error: -b does not exist: give the folder of the images"),
        (["compare", "--", "-*"], "error: stage.compare.runs: no finished run matches -*: give folders"),
        (["train", "-images"], "the table of tags -images/tags.csv does not exist"),
        (["train", "images", "--tags", "-a.tif", "--name", "-x"], "ome train does not know -x"),
        (["report", "-images"], "-images is not the folder of a run"),
        (["resume", "-images"], "-images is not the folder of a run"),
        (["export", "-images"], "-images is not the folder of a run"),
        (["compare", "-images"], "no finished run matches ./-images"),
        *(([command, "--x"], "--x is not the folder of a run") for command in ("report", "resume", "export")),
        (["train", "--x"], "the table of tags --x/tags.csv does not exist"),
        (["tags", "--x"], "no GeoTIFF, PNG or JPEG in --x"),
        (["predict", "--x", "--x"], "--x is not the folder of a run"),
        (["compare", "--x"], "no finished run matches ./--x"),
        (["report", "--y=1"], "--y=1 is not the folder of a run"),
        (["train", "--tags"], "type ome train IMAGES; type ./--tags for the file of that name; ome train"),
        (["predict", "a", "b", "--confidence=1"], "--confidence takes no value, omit what follows its =: ty"),
        (["compare", "a", "--latex=x.tex"], "ome compare: --latex takes no value, omit what follows its ="),
        (["--cfg"], "argument --cfg/-c: expected one argument: type python -m ome.run --hydra-help"),
        (["stage=cam", "--cfg", "x"], "--cfg/-c: invalid choice: 'x' (choose from 'job', 'hydra', 'all')"),
        (["stage=cam", "--info", "x"], "argument --info/-i: invalid choice: 'x' (choose from"),
        (["stage=cam", "-m=2"], "--multirun/-m takes no value, omit what follows its =: type python"),
        (["stage=cam", "--help=2"], "--help/-h takes no value, omit what follows its =: type python"),
        (["stage=cam", "-q"], "unknown option -q: settings have no dashes, type q=VALUE"),
        (["stage=cam", "--a b!"], "unknown option --a b!: settings have no dashes, type a b!=VALUE"),
        (["stage=cam", "--"], "settings have no dashes, type KEY=VALUE"),
        (["tags", "-images"], "no GeoTIFF, PNG or JPEG in -images"),
        (["tags", "images", "--table", "-a.tif"], "error: -a.tif, line 1: no column image; give image,tags"),
        (["compare", "runs/a"], "no finished run matches runs/a"),
        (["compare", "runs/a", "stage.compare.settigns=1"], "did you mean stage.compare.settings?"),
        (["train", LONG], "(File name too long): give the scene, image or run a shorter name"),
        (["train", "images", "--tags", LONG], "(File name too long)"),
        (["predict", LONG, "images"], "(File name too long)"),
        (["predict", "images", LONG], "(File name too long)"),
        (["tags", LONG], "(File name too long)"),
        (
            ["stage=prepare", "dataset=custom", "dataset.raw=images", f"dataset.tags={LONG}"],
            "(File name too long)",
        ),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, typed: list[str], message: str) -> None:
    for folder in ("images", "-images", "--x", "--y=1", "a (b)", "a sweep", "broken run/logs/x/config"):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("a.tif", "-a.tif", "--a.tif", "--tags", "-a(1).tif", "images/c.png"):
        (tmp_path / name).touch()
    (tmp_path / "a sweep/multirun.yaml").touch()
    (tmp_path / "broken run/logs/x/config/overrides.yaml").write_text("{")
    status, printed = forked(tmp_path, *typed)
    lines = [line for line in printed.strip().splitlines() if not line.startswith("a command is left out")]
    assert (status, len(lines)) == (1, 1), printed
    assert message in printed
    assert not list((tmp_path / "runs").rglob("*"))


@pytest.mark.parametrize(
    "name",
    [
        "valley",
        "nan",
        "1e5",
        "007",
        "true",
        "null",
        "a b",
        "it's",
        "q\\'",
        "[x]",
        "é,=#",
        "a\\b",
        "b\\",
        "a*b",
        "a?b",
        'q"q',
        "a;b",
        "50%",
        "`a`",
        "~a",
        "a~",
        "a:b",
        "a|b",
        "{a}",
        "a,b",
        "@a",
        "!a",
        "1_000",
        "0x1F",
        "$a",
        "\u65e5\u672c",
        "\U0001f333",
        " a",
        "a ",
        "...",
        "\u00e9",
        "\u0661",
    ],
)
def test_folders_may_have_any_name(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir()
    (tmp_path / name / "tags.csv").write_text("")
    config = compose_config([word for word in words_of(["train", name]) if "plan" not in word])
    assert (config.name, config.dataset.raw, config.run_dir) == (name, name, f"runs/{name}")
    assert compose_config(words_of(["compare", name, "b"])).stage.compare.runs == [name, "b"]


@pytest.mark.parametrize("pattern", ["runs/*/*lr=0.01*", "*=1", "r[ab]=?", "a/b c=*", "runs/lr=1,seed=*"])
def test_a_pattern_with_an_equals_sign_is_no_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str
) -> None:
    (tmp_path / "runs/lr=1,seed=0").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert compose_config(words_of(["compare", "r", pattern, "seed=3"])).stage.compare.runs == ["r", pattern]


@pytest.mark.parametrize("name", ["${x}", "a${oc.env:HOME}b"])
def test_a_name_that_settings_would_replace_is_refused(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir()
    (tmp_path / name / "tags.csv").write_text("")
    for words in (["train", name], ["compare", name, "b"]):
        with pytest.raises(UserError, match=r"contains \$\{, which settings replace: rename it"):
            words_of(words)


@pytest.mark.parametrize("classes", [2, 12, 250])
def test_a_setting_may_be_longer_than_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, classes: int
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    (tmp_path / "images/tags.csv").write_text("")
    colours = {f"class {number}": [number, 0, 255] for number in range(classes)}
    listed = ",".join(f"{name}: {colour}" for name, colour in colours.items())
    words = words_of(["train", "images", f"dataset.classes={{{listed}}}"])
    assert compose_config(words).dataset.classes == colours


def test_what_can_be_typed_is_said_where_nothing_is(tmp_path: Path) -> None:
    for module, words in (("ome.run", "No arguments, so nothing runs"), ("ome", "ome tags IMAGES")):
        done = run_words(tmp_path, [sys.executable, "-m", module])
        assert (done.returncode, done.stderr) == (0, "")
        assert words in done.stdout
        assert "ome train IMAGES" in done.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("settings", "left"), [("config", {"own.yaml", "run.log"}), (None, None)])
def test_a_log_goes_with_what_hydra_wrote_and_nothing_else(
    tmp_path: Path, settings: str | None, left: set[str] | None
) -> None:
    """Hydra writes nothing for a plan, whose log is the working folder, which may lie in that of the run."""
    log = tmp_path / "run/logs/today"
    (log / "config").mkdir(parents=True)
    for name in ("config.yaml", "hydra.yaml", "overrides.yaml", "own.yaml"):
        (log / "config" / name).touch()
    (log / "run.log").write_text("said")
    before = {path.name for path in log.rglob("*.*")}
    with pytest.raises(UserError), removed_if_refused(log, settings, tmp_path / "run"):
        raise UserError("a mistake")
    assert {path.name for path in log.rglob("*.*")} == (left or before)


@pytest.mark.parametrize(
    ("there", "refused"),
    [
        ([], False),
        (["config/config.yaml"], True),
        (["config/config.yaml", "config/hydra.yaml", "config/overrides.yaml"], True),
        (["resolved.yaml"], True),
    ],
)
def test_hydra_overwrites_no_settings_but_its_own(tmp_path: Path, there: list[str], refused: bool) -> None:
    """`hydra.run.dir=.` may be typed in a project whose settings are in `config/`."""
    (tmp_path / "config").mkdir()
    for name in there:
        (tmp_path / name).write_text("hydra: {runtime: {config_sources: [{path: my.conf}]}}")
    with initialize_config_module("ome.conf", version_base="1.3"):
        config = compose("config", [f"+hydra.runtime.output_dir={tmp_path}"], return_hydra_config=True)
    if refused:
        with pytest.raises(InterpolationResolutionError, match=r"\.yaml would be overwritten"):
            _ = config.hydra.output_subdir
    else:
        assert config.hydra.output_subdir == "config"


@pytest.mark.parametrize("mode", ["run", "sweep"])
def test_commands_of_one_second_have_logs_of_their_own(mode: str) -> None:
    """Else one that is refused would remove the settings of the other."""
    with initialize_config_module("ome.conf", version_base="1.3"):
        configs = [compose("config", return_hydra_config=True) for _ in range(4)]
    assert len({config.hydra[mode].dir for config in configs}) == 4


@pytest.mark.parametrize("place", [".", "run", "elsewhere"])
def test_settings_of_a_run_may_refer_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """Wherever the command is typed, with the run's path from there."""
    for folder in ("run", "elsewhere"):
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path / place)
    for day, words in (
        ("1", "[seed=3, 'dataset.name=town_${seed}']"),
        ("2", "[stage=predict, 'seed=${oc.env:GONE_}']"),
    ):
        (folder := tmp_path / f"run/logs/{day}/config").mkdir(parents=True)
        runtime = f"{{cwd: {tmp_path}, config_sources: [], choices: {{preset: few}}}}"
        (folder / "hydra.yaml").write_text(f"hydra: {{runtime: {runtime}}}\n")
        (folder / "overrides.yaml").write_text(words + "\n")
    words = words_of(["report", os.path.relpath(tmp_path / "run")])
    assert {"seed=3", "dataset.name=town_${seed}"} <= {*words}
    (folder,) = (Path(word.removeprefix("run_dir=")) for word in words if word.startswith("run_dir="))
    assert folder.samefile(tmp_path / "run")


@pytest.mark.parametrize("is_kept", [True, False], ids=["copied", "moved"])
@pytest.mark.parametrize(
    ("run", "now", "working", "own"),
    [
        ("old/runs/a", "new/runs/a", "new", "new/conf"),
        ("old/runs/a", "deep/new/runs/a", "deep/new", "deep/new/conf"),
        ("old/runs/a", "elsewhere/a", "old", "old/conf"),
        ("old/runs/a", "scratch/runs/a", "old", "old/conf"),
        ("disk/a", "new/a", "old", "old/conf"),
    ],
    ids=["project", "project into another folder", "run alone", "runs alone", "run on another disk"],
)
def test_relative_paths_of_a_run_start_in_its_own_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_kept: bool, run: str, now: str, working: str, own: str
) -> None:
    if is_kept:
        (tmp_path / run / "logs/1").mkdir(parents=True)
    for project in {working, "old"} if is_kept else {working}:
        (tmp_path / project / "images").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    (saved := tmp_path / now / "logs/1/config").mkdir(parents=True)
    source = f"{{path: {tmp_path}/old/conf, provider: command-line}}"
    runtime = f"cwd: {tmp_path}/old, output_dir: {tmp_path}/{run}/logs/1, config_sources: [{source}]"
    (saved / "hydra.yaml").write_text(f"hydra: {{runtime: {{{runtime}, choices: {{preset: few}}}}}}\n")
    (saved / "overrides.yaml").write_text("[dataset.raw=images]\n")
    words = words_of(["resume", now])
    assert {"dataset.raw=images", f"--config-dir={tmp_path / own}", f"run_dir={tmp_path / now}"} <= {*words}
    assert Path.cwd() == tmp_path / working


@pytest.mark.parametrize(
    ("names", "others"),
    [
        (["tags.csv"], ""),
        *(([f"tags{suffix}"], "") for suffix in (*SPREADSHEETS, *OTHERS)),
        (["tags.csv", "tags.xlsx"], "tags.xlsx"),
        (["tags.csv", "tags.xlsm", "tags.ods"], "tags.xlsm, tags.ods"),
        (["tags.xlsx", "tags.xls"], "tags.xls"),
    ],
)
def test_training_and_tagging_take_the_same_table(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    names: list[str],
    others: str,
) -> None:
    images = write_images(tmp_path / "images", 1)
    for name in names:
        (images / name).touch()
    read = images / names[0]
    assert f"dataset.tags={read}" in words_of(["train", str(images)])
    line = f"{read} is read, and not {others} beside it: delete or rename what is out of date\n"
    assert capsys.readouterr().out == (line if others else "")
    monkeypatch.delattr("ome.tagging.command._listen")  # or it would serve a page, and wait
    assert tags_main([str(images)]) == 1
    fault = "is a spreadsheet, but the page writes CSV: save it as .csv first"
    fault = ", line 1: no column image" if read.suffix == ".csv" else f" {fault}"
    assert f"error: {read}{fault}" in capsys.readouterr().out
    assert sorted(path.name for path in images.glob("tags*")) == sorted(names)
