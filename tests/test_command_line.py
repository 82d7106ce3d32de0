"""What a person sees who types something wrong: one line, exit status 1, and nothing left behind."""

import os
import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import QuotedString
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException
from PIL import Image

from ome.cli.commands import COMMANDS
from ome.cli.errors import explain
from ome.cli.launch import check_command
from ome.cli.words import check_words, with_home, with_text
from ome.errors import UserError
from tests.conftest import compose_config, forked, run_process, run_without_torch, run_words, tiny


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["stage=cam", "stage.lrr=1"], "error: unknown setting stage.lrr: did you mean stage.cam.lr?"),
        (["prepare"], "error: unknown command 'prepare': choose one of tags, train, resume, predict"),
        (["dataset=Potsdam"], "unknown option dataset=Potsdam: did you mean dataset=potsdam? there are"),
        (["dataset="], "unknown option dataset=: there are"),
        (
            ["callbacks=[early_stopping,lr_monitr]"],
            "unknown option callbacks=lr_monitr: did you mean callbacks=lr_monitor?",
        ),
        (["trainer=dpp"], "unknown option trainer=dpp: did you mean trainer=ddp? there are"),
        (["stage.refine.rounds=abc"], "stage.refine.rounds=abc: expected a whole number of at least 0"),
        (["-m", "stage.refine.rounds=1,abc"], "stage.refine.rounds=abc: expected a whole number"),
        (["-m", "seed=1,2", "+trainer.foo=1"], "trainer.foo is not an argument of pl.Trainer"),
        (["backbone=encoder"], "error: backbone.name is not set: type backbone.name="),
        (["--config-dir"], "--config-dir takes a value"),
        (["hydra=null"], "hydra=null: settings of Hydra are set one by one: type hydra.NAME=VALUE"),
        (["hydra.run.dir=null"], "hydra.run.dir=null: field 'hydra.run.dir' is not Optional: type another"),
        (["hydra.job.chdir=maybe"], "Value 'maybe' is not a valid bool (type str): type another value"),
        (["dataset.filter.overrides.field=2"], "'field': 2}: expected a mapping of names"),
        (["-m", "preset=laptop,3"], "preset=laptop,3: preset takes the name of an option: few, gpu"),
        (["stage=all", "output=/dev/null/x"], "cannot read or write"),
        (["-m", "stage=cam", "stage.cam.lr=0.1,-1"], "stage.cam.lr=-1: expected a number above 0"),
        (["-m", "stage=cam", "backbone=resnet18,resnet19"], "unknown option backbone=resnet19: did you mean"),
        (["stage=prepare", "dataset=potsdam", "dataset.raw=nowhere"], "error: nowhere does not exist"),
        (["stage=cam"], "run the same command with stage=prepare first, or with stage=all"),
        (
            ["stage=all", "--dataset", "potsdam"],
            "option --dataset: settings have no dashes, type dataset=potsdam",
        ),
        (["--tile-size", "stage=all"], "settings have no dashes, type tile_size=VALUE"),
        (["-m", "stage=cam", "--cfg", "job"], "--cfg and --info show the settings of one job: leave out -m"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, overrides: list[str], message: str) -> None:
    status, printed = forked(tmp_path, *overrides)
    lines = printed.strip().splitlines()
    assert status == 1
    assert len(lines) == 1, lines
    assert message in lines[0]
    assert not (tmp_path / "scenes").exists()


@pytest.mark.parametrize(
    "words",
    [
        *(["train", "a\nb"], ["resume", "a\nb"], ["predict", "a\nb", "c"], ["report", "a\rb"]),
        *(["tags", "a\nb"], ["doctor", "a\nb"], ["compare", "a\nb"], ["tags", ".", "--no\nne"]),
        *(["a\nb"], ["stage=cam", "--a\nb"], ["stage=a\nb"], ["a\nb=1"], ["stage=cam", "a\nb"]),
        *(["stage=cam", "dataset=custom", "dataset.raw=a\nb"], ["stage=prepare", "inherit=a\nb"]),
        *(["stage=all", "run_dir=/proc/a\nb"], ["stage=cam", "name=a\nb"], ["stage=cam", "seed=a\nb"]),
        *(["-m", "stage=cam", "seed=0,a\nb"], ["stage=predict", "stage.predict.scene=a\nb"]),
        *(["stage=cam", "--config-dir=a\nb"], ["stage=cam", "backbone=a\nb"]),
    ],
)
def test_a_newline_in_a_name_does_not_break_the_line(tmp_path: Path, words: list[str]) -> None:
    status, printed = forked(tmp_path, *words)
    lines = [line for line in printed.splitlines() if not line.startswith(("ok", "note"))]
    assert status == 1
    assert len(lines) - ("doctor" in words) == 1, printed


@pytest.mark.parametrize(
    ("typed", "line"),
    [
        ("doctor --config-dir=mine dataset=torn", "torn.yaml, line 2, column 1 is not YAML"),
        ("train images --config-dir mine dataset=torn", "torn.yaml, line 2, column 1 is not YAML"),
        ("stage=prepare --config-dir mine dataset=torn", "torn.yaml, line 2, column 1 is not YAML"),
        *(
            (f"{typed}{'long' * 75}", "(File name too long): ")
            for typed in (
                "doctor dataset=custom dataset.raw=images dataset.tags=",
                "tags images --classes road --table ",
                "train images --tags ",
                "stage=prepare dataset=custom dataset.raw=images dataset.tags=",
            )
        ),
    ],
)
def test_what_the_disk_or_yaml_says_is_one_line_of_every_command(
    tmp_path: Path, typed: str, line: str
) -> None:
    (tmp_path / "mine/dataset").mkdir(parents=True)
    (tmp_path / "mine/dataset/torn.yaml").write_text("classes: [a\n")
    (tmp_path / "images").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "images/a.png")
    (tmp_path / "images/tags.csv").write_text("image,tags\na.png,road\n")
    status, printed = forked(tmp_path, *typed.split())
    assert status == 1
    lines = [one for one in printed.splitlines() if not one.startswith(("ok", "note", "sizes of images"))]
    assert len(lines) - typed.startswith("doctor") == 1, printed
    assert line in lines[0]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["stage=cam", "stage.lr=1"], "unknown setting stage.lr: type stage.cam.lr"),
        (["stage=all", "epochs=3"], "unknown setting epochs: type stage.cam.epochs or stage.affinity.epochs"),
        (["stage=predict", "scene=x.tif"], "unknown setting scene: type stage.predict.scene"),
        (
            ["stage=all", "stage.seg.epoch=1"],
            "unknown setting stage.seg.epoch: did you mean stage.cam.epochs",
        ),
        (["stage.cam.steps=3"], "unknown setting stage.cam.steps: type stage.cam.epochs"),
        (["segmenter.recipe.epochs=3"], "segmenter.recipe.epochs: type segmenter.recipe.steps"),
        (["foo=1"], "unknown setting foo: known are "),
        (["+seed=1"], "seed has a value already: type seed=1, without +"),
        (["stage=cam", "+stage.lr=1"], "unknown setting stage.lr: type stage.cam.lr"),
        (["+batch_size=4"], "unknown setting batch_size: type stage.cam.batch or segmenter.recipe.batch"),
        (["+dataset.tile_size=64"], "unknown setting dataset.tile_size: type dataset.tile.size"),
        (["segmenter._target_=a.B"], "segmenter._target_: add it by +segmenter._target_="),
        (["gpus=2"], "unknown setting gpus: type trainer.devices"),
        (["model=resnet50"], "unknown setting model: type backbone"),
        (["data=/data"], "unknown setting data: type dataset.raw"),
        (["dataset.path=/data"], "unknown setting dataset.path: type dataset.raw"),
        (["classes=[a,b]"], "unknown setting classes: type dataset.classes"),
        (["batch_size=4"], "unknown setting batch_size: type stage.cam.batch or segmenter.recipe.batch"),
        (
            ["dataset=/data/x"],
            "option dataset=/data/x: for a folder of images type dataset=custom dataset.raw=/data/x",
        ),
        (
            ["segmenter/recipe=adam"],
            "unknown option segmenter/recipe=adam: did you mean segmenter/recipe=adamw?",
        ),
        (["dataset.classes=[a,b]"], "dataset.classes=[a,b]: expected settings by name"),
        (["segmenter.recipe=[1]"], "segmenter.recipe=[1]: expected settings by name"),
        (["trainer.gradient_clip_val=1"], "by +trainer.gradient_clip_val="),
        (["tile_size=64"], "unknown setting tile_size: type dataset.tile.size"),
        (
            ["dataset.indices={tree:1}"],
            "setting dataset.indices in this configuration: add it by +dataset.indices=",
        ),
        (["callbacks=null"], "callbacks takes the name of an option: device_stats, early_stopping"),
        (["recipe.steps=10"], "unknown setting recipe.steps: type segmenter.recipe.steps"),
        (["stage=cam", "cam.export.flip=true"], "cam.export.flip: type stage.cam.export.flip"),
        (
            ["optimizer=adamw", "optimizer.layer_decay=0.5"],
            "optimizer.layer_decay: type stage.cam.layer_decay",
        ),
        (["crf=3"], "crf=3: crf takes the name of an option: densecrf"),
        (["crf=[1]"], "crf=[1]: crf takes the name of an option: densecrf"),
        (["crf=3=4"], "cannot parse crf=3=4: put its value in quotes"),
        (["dataset=atlantis"], "unknown option dataset=atlantis: there are custom"),
        (["stage=cam", "stage.cam.lr=0,003"], "for a decimal type stage.cam.lr=0.003, for a sweep over the"),
        (
            ["stage=cam", "stage.cam.epochs=1,2"],
            "for a sweep over the values add -m, for a list type 'stage.cam",
        ),
        (["stage=all", "dataset.channels=1,2,3"], "for a list type 'dataset.channels=[1,2,3]'"),
        (["stage=sge"], "unknown option stage=sge: did you mean stage=seg? there are"),
        (["trainer.max_epochs=3"], "trainer.max_epochs is set by ome: set stage.cam.epochs"),
        (["trainer.devices=${nowhere}"], "trainer.devices: Interpolation key 'nowhere' not found"),
        (["inherit=runs/nowhere"], "inherit=runs/nowhere does not exist: give folders of runs"),
        (["dataset.split.train=abc"], "dataset.split: list the scenes of the town"),
        (["dataset.split=tags"], "dataset.tags is not set: type dataset.tags="),
        (["+a.b=1"], "unknown setting a: known are seed, force"),
        (["+_a=1"], "unknown setting _a: known are seed, force"),
        (["+stage.foo.bar=1"], "unknown setting stage.foo: known are prepare, labels"),
        (
            ["+optimizer.momentum=0.5"],
            "optimizer.momentum: type stage.cam.momentum or stage.affinity",
        ),
        (["+preset.lr=1"], "unknown setting preset.lr: type stage.cam.lr"),
        (
            ["callbacks.device_stats.cpu_stats=true"],
            "unknown setting callbacks.device_stats: type callbacks=device_stats first",
        ),
        (["stage=cam", "~crf"], "crf is not set: expected a group of settings"),
        (["stage=all", "stage.until=predict"], "stage=all never runs this stage: type stage=predict"),
        (["stage=all", "backbone.weights=/etc/hosts"], "a checkpoint"),
        (
            ["stage=cam", "backbone=convnext_tiny"],
            "encoder takes those of timm: backbone=encoder backbone.name=",
        ),
        (
            ["stage=prepare", "dataset=potsdam", f"dataset.raw={__file__}"],
            "test_command_line.py is a file, not a folder",
        ),
        (
            ["stage=predict", "stage.predict.scene=a,b.tif"],
            """-m, for a list type 'stage.predict.scene=[a,b.tif]', for a text with a comma type "stage""",
        ),
    ],
)
def test_wrong_words_are_explained_in_one_line(overrides: list[str], message: str) -> None:
    def check() -> None:
        check_words(overrides)
        check_command(compose_config(overrides))

    with pytest.raises((UserError, HydraException, OmegaConfBaseException)) as raised:
        check()
    (line,) = explain(raised.value)
    assert message in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("overrides", "lines"),
    [
        (
            ["stage.lr=1", "epochs=3", "seed=x", "trainer.devices=two"],
            ["unknown setting stage.lr: ", "unknown setting epochs: ", "trainer.devices=two: ", "seed=x: "],
        ),
        (["trainer.devices=2", "gpus=2"], ["unknown setting gpus: type trainer.devices"]),
        (
            ["dataset=Custom", "dataset.tags=x.csv", "foo=1"],
            ["unknown option dataset=Custom", "unknown setting foo"],
        ),
        (["experiment=none", "stage.cam.rate=1"], ["unknown option experiment=none"]),
        (["dataset.rw=x", "dataset=custom"], ["unknown setting dataset.rw"]),
        (["seed=[", "foo=1"], ["cannot parse seed=[", "unknown setting foo"]),
        (["-m", "foo=1", "bar=1"], ["unknown setting foo"]),
    ],
)
def test_all_mistakes_are_said_at_once(tmp_path: Path, overrides: list[str], lines: list[str]) -> None:
    """And none that only follows from another."""
    status, printed = forked(tmp_path, "stage=cam", *overrides)
    said = printed.removeprefix("error: ").splitlines()
    assert (status, len(said)) == (1, len(lines)), printed
    for line in lines:
        assert printed.count(line) == 1, printed


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("dataset/broken", "name: [a\nraw: x: y\n", "broken.yaml, line 2, column 4 is not YAML: "),
        ("dataset/tab", "name:\tx\n\traw: y\n", "tab.yaml, line 1, column 6 is not YAML: "),
        (
            "dataset/short",
            "name: short\nraw: x\n",
            "error: scenes: Interpolation key 'dataset.bands' not found",
        ),
        (
            "experiment/near",
            "# @package _global_\nsegmentor: {name: fpn}\n",
            "setting segmentor: did you mean segmenter?",
        ),
        (
            "experiment/stage",
            "# @package _global_\nstage: {cma: {epochs: 3}}\n",
            "stage.cma: did you mean stage.cam?",
        ),
        (
            "stage/mine",
            "defaults: [all, _self_]\nname: mine\nmine: {digits: 1}\n",
            "stage.mine._target_ is not set",
        ),
        (
            "stage/gone",
            "defaults: [all, _self_]\nname: gone\ngone: {_target_: gone.STAGE}\n",
            "cannot be imported (ModuleNotFoundError(\"No module named 'gone'\")): is its folder",
        ),
    ],
)
def test_a_mistake_in_a_file_of_the_user_is_one_line(
    tmp_path: Path, name: str, text: str, message: str
) -> None:
    file = tmp_path / "mine" / f"{name}.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(text)
    group, _, option = name.partition("/")
    status, printed = forked(tmp_path, "--config-dir", "mine", f"{group}={option}")
    assert status == 1
    assert len(printed.strip().splitlines()) == 1, printed
    assert message in printed
    assert not (tmp_path / "runs").exists()


def test_a_stage_of_a_package_without_a_file_is_selected_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "plug-1.dist-info").mkdir()
    (tmp_path / "plug-1.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: plug\nVersion: 1\n")
    (tmp_path / "plug-1.dist-info/entry_points.txt").write_text("[ome.stages]\ncover = cover:STAGE\n")
    monkeypatch.syspath_prepend(tmp_path)
    _, printed = forked(tmp_path, "stage=cover")
    assert "unknown option stage=cover: of a package, without a file: type stage.name=cover" in printed


@pytest.mark.parametrize("there", [False, True])
def test_a_refused_command_leaves_no_folder_that_was_not_there(tmp_path: Path, *, there: bool) -> None:
    if there:
        (tmp_path / "runs").mkdir()
    status, _ = forked(tmp_path, "stage=all", "seed=x")
    assert status == 1
    assert {path.name for path in tmp_path.iterdir() if path.name[0] != "."} == ({"runs"} if there else set())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["output="], "output= is empty, but must be a folder: type output=FOLDER, or omit it"),
        (["run_dir="], "run_dir= is empty"),
        (["scenes="], "scenes= is empty"),
        (["name="], "name= is not the name of a folder"),
        (["name=../../x"], "name=../../x is not the name of a folder: type another, or choose run_dir="),
        (["-m", "seed=0,1", "output="], "output= is empty"),
        (
            ["-m", "seed=0,1", "run_dir=mine"],
            "run_dir=mine: each job of a sweep has a folder of its own: type",
        ),
        (["-m", "seed=0,1", "name=../../x"], "name=../../x is not the name of a folder"),
        (["name=/x"], "name=/x is not the name of a folder"),
        (["dataset.name=../x"], "dataset.name=../x is not the name of a folder: type another"),
        (["dataset.name=.."], "dataset.name=.. is not the name of a folder"),
        (["dataset.raw="], "dataset.raw is not set: type dataset.raw=/path"),
    ],
)
def test_a_folder_without_a_name_leaves_nothing_anywhere(
    tmp_path: Path, words: list[str], message: str
) -> None:
    here = tmp_path / "a/b/c"
    here.mkdir(parents=True)
    status, printed = forked(here, "stage=prepare", *words)
    assert status == 1
    assert printed.startswith("error: ")
    assert len(printed.splitlines()) == 1, printed
    assert message in printed
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.name[0] != "."}
    assert left == {"a", "a/b", "a/b/c"}


@pytest.mark.parametrize("key", ["run_dir", "scenes"])
def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path, key: str) -> None:
    status, printed = forked(tmp_path, *tiny("prepare"), f"{key}=/proc/x")
    assert status == 1
    assert len(printed.strip().splitlines()) == 1, printed
    assert "cannot" in printed
    assert "/proc/" in printed


@pytest.mark.parametrize(
    ("module", "words", "status"),
    [
        pytest.param("ome.run", ["--help"], 0, marks=pytest.mark.slow),
        pytest.param("ome.run", ["stage=all", "--cfg", "job"], 0, marks=pytest.mark.slow),
        ("ome.run", ["stage=nonsense"], 1),
        ("ome", ["--help"], 0),
        ("ome", ["doctor", "--help"], 0),
        ("ome", ["nonsense"], 1),
    ],
)
def test_output_that_cannot_be_written_ends_the_process_without_a_traceback(
    tmp_path: Path, module: str, words: list[str], status: int
) -> None:
    command = shlex.join([sys.executable, "-m", module, *words])
    reader, writer = os.pipe()
    os.close(reader)
    for ending, expected in (
        (f">&{writer}", (141, b"")),
        (">&-", (status, b"")),
        (
            ">/dev/full",
            (1, b"error: cannot write to the standard output (No space left on device): free some"),
        ),
    ):
        shell = ["bash", "-c", f"{command} {ending}"]
        done = subprocess.run(shell, cwd=tmp_path, pass_fds=[writer], stderr=-1, check=False)
        assert (done.returncode, done.stderr[: len(expected[1]) or None]) == expected
        assert done.stderr.count(b"\n") <= 1
    os.close(writer)


INTERRUPTED = """
import os, runpy, signal, sys
interrupted, module, *sys.argv[1:] = sys.argv[1:]
class Finder:
    def find_spec(self, name, *others):
        if name == interrupted:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""
"""A command line that is interrupted when it imports a module."""


@pytest.mark.parametrize(
    ("imported", "words"),
    [
        ("hydra", ["ome", "doctor"]),
        ("numpy", ["ome", "compare", "runs"]),
        ("rich", ["ome", "tags", "images"]),
        ("hydra", ["ome.run", "--help"]),
        ("torch", ["ome.run", "stage=cam"]),
    ],
)
def test_an_interruption_is_one_line_also_while_modules_are_imported(
    tmp_path: Path, imported: str, words: list[str]
) -> None:
    done = run_words(tmp_path, [sys.executable, "-c", INTERRUPTED, imported, *words])
    assert done.returncode == 130, done
    assert len((done.stdout + done.stderr).splitlines()) <= 1
    assert "interrupted" in done.stdout + done.stderr


@pytest.mark.parametrize("words", [["predict", "run"], ["report"], ["train"], ["doctor"], ["tags"]])
def test_an_unset_variable_of_the_shell_is_no_folder(tmp_path: Path, words: list[str]) -> None:
    done = run_words(tmp_path, [sys.executable, "-m", "ome", *words, ""])
    line = (
        f"error: argument {len(words)} of ome {words[0]} is empty (''), e.g. an unset variable of the shell"
    )
    assert (done.returncode, done.stdout.startswith(line), done.stdout.count("\n")) == (1, True, 1)


@pytest.mark.parametrize(
    ("variables", "line"),
    [
        (
            {"RANK": "x"},
            "RANK=x is not a whole number: torchrun or srun sets it; in a process started by hand",
        ),
        ({"LOCAL_RANK": ""}, "LOCAL_RANK= is not a whole number"),
        ({"WORLD_SIZE": "1.0"}, "WORLD_SIZE=1.0 is not a whole number"),
        ({"SLURM_PROCID": "-1"}, "SLURM_PROCID=-1 is not a whole number"),
        ({"SLURM_LOCALID": "1e9"}, "SLURM_LOCALID=1e9 is not a whole number"),
        ({"RANK": "2"}, "RANK=2 is not below WORLD_SIZE=2"),
        ({"WORLD_SIZE": "0"}, "RANK=0 is not below WORLD_SIZE=0"),
        ({"LOCAL_WORLD_SIZE": "0"}, "LOCAL_RANK=0 is not below LOCAL_WORLD_SIZE=0"),
        ({"SLURM_PROCID": "9", "SLURM_STEP_NUM_TASKS": "9"}, "SLURM_PROCID=9 is not below SLURM_STEP_NUM"),
    ],
)
@pytest.mark.parametrize("whole", [True, False])
def test_ranks_that_no_launcher_gives_are_one_line(
    tmp_path: Path, variables: dict[str, str], line: str, whole: bool
) -> None:
    """Beside the other variables of torchrun, and without those that are not compared."""
    place = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    others = place | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"} if whole or "not below" in line else {}
    commands = [["stage=labels"], ["stage=labels", "plan=true"], ["stage=nothing"]]
    for words in commands if whole and "RANK" in variables else commands[:1]:
        status, printed = forked(tmp_path, *words, sabotage=lambda: os.environ.update(others | variables))
        assert (status, len(printed.splitlines())) == (1, 1), printed
        assert f"error: the environment variable {line}" in printed


@pytest.mark.parametrize("module", ["ome", "ome.run"])
def test_the_version_is_that_of_ome(tmp_path: Path, module: str) -> None:
    done = run_words(tmp_path, [sys.executable, "-m", module, "--version"])
    assert done.stdout == f"ome {version('ome')}\n"


def test_faults_of_every_kind_are_said_at_once(tmp_path: Path) -> None:
    """Of the stage, of a type, of settings that do not fit, and of the trainer."""
    kinds = ["stage.until=nowhere", "seed=-1", "segmenter.recipe.warmup_steps=20000", "+trainer.max_steps=7"]
    status, printed = forked(tmp_path, "stage=all", "dataset=potsdam", *kinds)
    assert status == 1
    for part in ("unknown stage 'nowhere'", "seed=-1: expected", "trainer.max_steps is set by ome"):
        assert part in printed


@pytest.mark.parametrize(
    "value", ["my (d) [x]", "é.tif", "a#b", "a=b", "it's", 'say "x" (1)', "a{b}", "a&b;c", "a$b (1)"]
)
def test_the_line_about_quotes_can_be_typed(tmp_path: Path, value: str) -> None:
    status, printed = forked(tmp_path, "stage=prepare", "dataset=custom", f"dataset.raw={value}")
    line, _, typed = printed.strip().partition(": put its value in quotes, as in ")
    assert (status, line) == (1, f"error: cannot parse dataset.raw={value}")
    config = compose_config(["stage=prepare", "dataset=custom", *shlex.split(typed)])
    assert config.dataset.raw == value


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("scenes=~/a", "scenes=/home/me/a"),
        ("scenes='~/a b'", "scenes='/home/me/a b'"),
        ('scenes="~/a"', 'scenes="/home/me/a"'),
        ("--config-dir=~/conf", "--config-dir=/home/me/conf"),
        *[
            (word, word)
            for word in ("~callbacks", "name=a~/b", "~dataset.x=~/a", "name=~", "scenes=~other/a")
        ],
    ],
)
def test_a_tilde_is_the_home_folder(monkeypatch: pytest.MonkeyPatch, word: str, meant: str) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert with_home(word) == meant


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("name=2_10", "name='2_10'"),
        ("dataset.split.train=[2_10, 1e3,a1]", "dataset.split.train=['2_10', '1e3',a1]"),
        ("dataset.classes=[1,water]", "dataset.classes=['1',water]"),
        ("inherit=1.10,2", "inherit='1.10','2'"),
        *[
            (word, word)
            for word in (
                "name",
                "name='2_10'",
                "output=2_1/a",
                "stage.cam.epochs=1_0",
                "run_dir=..",
                "dataset.classes={field: [0, 0, 255]}",
            )
        ],
    ],
)
def test_text_that_looks_like_a_number_stays_text(word: str, meant: str) -> None:
    assert with_text(word) == meant


@pytest.mark.parametrize(
    "item", ["2024", "2_10", "1e3", "valley 2024", "2024 valley", "20 24", "a 2024 b", "v2024"]
)
@pytest.mark.parametrize(
    ("form", "key"),
    [("{0}", "name"), ("/data/{0}", "dataset.raw"), ("[{0}]", "dataset.split.train")]
    + [(form, "stage.predict.others") for form in ("[{0},{0}]", "[a, {0} , b]")],
)
def test_hydra_reads_a_text_with_numbers_as_it_is_typed(item: str, form: str, key: str) -> None:
    read = OverridesParser.create().parse_override(with_text(f"{key}={form.format(item)}")).value()
    texts = read if isinstance(read, list) else [read]
    texts = [text.text if isinstance(text, QuotedString) else text for text in texts]
    meant = [text.strip() for text in form.format(item).strip("[]").split(",")]
    assert texts == meant


def test_options_may_stand_between_settings(tmp_path: Path) -> None:
    (tmp_path / "mine/dataset").mkdir(parents=True)
    (tmp_path / "mine/dataset/valley.yaml").write_text("defaults: [custom]\nname: valley\n")
    typed = ["stage=prepare", "--config-dir", "mine", "dataset=valley", "--cfg", "job", "dataset.raw=x"]
    done = run_words(tmp_path, [sys.executable, "-m", "ome.run", *typed])
    assert done.returncode == 0, done.stderr
    assert "  name: valley\n" in done.stdout
    assert "  raw: x\n" in done.stdout


def test_help_names_stages_and_choices(tmp_path: Path) -> None:
    done = run_process(tmp_path, "--help")
    assert done.returncode == 0
    for word in (
        "Try it:",
        "stage=prepare dataset=potsdam",
        "prepare   raw archives",
        "dataset: custom, deepglobe, flair, isaid, landcoverai, loveda, openearthmap, potsdam",
    ):
        assert word in done.stdout


def test_scenes_and_tags_do_not_wait_for_torch(tmp_path: Path) -> None:
    """Nor does the answer that nothing is to be done."""
    for _ in range(2):
        done = run_without_torch(tmp_path, *tiny("all"), "stage.until=labels")
        assert done.returncode == 0, done.stderr
    assert done.stdout.count("up to date") == 2
    assert (tmp_path / "runs/synthetic_tu-test_resnet/labels/tags.csv").exists()


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--help"],
        ["--version"],
        ["doctor"],
        ["doctor", "--help"],
        ["train", "--help"],
        ["help"],
        ["help", "train"],
    ],
)
def test_what_needs_no_network_does_not_wait_for_torch(tmp_path: Path, words: list[str]) -> None:
    done = run_without_torch(tmp_path, *words)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


def test_help_of_ome_names_every_command_and_fits_a_screen(tmp_path: Path) -> None:
    page = run_words(tmp_path, [sys.executable, "-m", "ome", "--help"]).stdout
    assert len(page.splitlines()) < 24
    for name in (*COMMANDS, "tags", "doctor"):
        assert f"  ome {name} " in page


@pytest.mark.parametrize("settings", [[], ["dataset=potsdam", "seed=3"]])
def test_help_is_that_of_hydra(tmp_path: Path, settings: list[str]) -> None:
    """Which prints it itself where there is another option, with a group that nobody types."""
    (tmp_path / "none").mkdir()
    page = run_process(tmp_path, "--help", *settings).stdout
    whole = run_process(tmp_path, "--help", "--config-dir", "none", *settings).stdout
    assert page.splitlines() == [
        line for line in whole.splitlines() if not line.startswith("stage/settings:")
    ]
    assert page.count("\n") == whole.count("\n") - 1 > 50
