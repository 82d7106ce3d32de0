"""The documentation: what it shows is run as it stands, and what it lists is what the program has."""

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from ome.cli.launch import launch
from ome.cli.runner import selected_stages
from ome.config.schema import Settings
from ome.config.schema.hints import addresses, expected
from ome.data.scene_index import SceneIndex
from ome.errors import UserError
from ome.files import read_csv
from ome.geo.raster import read_png
from ome.inference.card import SegmenterCard
from ome.pipeline.stage import stage_folder

ROOT = Path(__file__).parents[1]
docs_hooks = pytest.importorskip("docs_hooks")
docs_settings = pytest.importorskip("docs_settings")
docs_errors = pytest.importorskip("docs_errors")

QUICK = (
    "segmenter.recipe.steps=2",
    "segmenter.recipe.steps_per_epoch=1",
    "segmenter.recipe.batch=2",
    "trainer=cpu",
    "trainer.workers=0",
    "stage.cam.epochs=1",
    "stage.cam.batch=4",
    "stage.cam.validation_tiles=0",
    "stage.cam.export.scales=[1.0]",
    "stage.pseudo.threads=1",
)


def blocks(page: str, language: str) -> list[str]:
    """The fenced code blocks of a page in a language."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.+?)^```", text, flags=re.DOTALL | re.MULTILINE)


def write_meadows(raw: Path) -> None:
    """Three scenes whose left half is soil or grass, and whose right half is shrub or shadow."""
    for folder in ("images", "reference"):
        (raw / folder).mkdir(parents=True)
    for seed, (scene, left, right) in enumerate([("north", 3, 2), ("east", 1, 0), ("south", 1, 2)]):
        mask = np.repeat([[left] * 64 + [right] * 64], 64, axis=0).astype(np.uint8)
        noise = np.random.default_rng(seed).integers(0, 60, (3, 64, 128))
        image = (60 * mask + noise).astype(np.uint8)
        for folder, bands in (("images", image), ("reference", mask[None])):
            size = {"count": len(bands), "height": 64, "width": 128}
            with rasterio.open(
                raw / folder / f"{scene}.tif", "w", driver="GTiff", dtype="uint8", **size
            ) as file:
                file.write(bands)


def test_the_examples_of_extending_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    dataset, backbone, network, loss, callback, settings = blocks("extend.md", "yaml")
    for group, name, text in (
        ("dataset", "meadows", dataset),
        ("backbone", "light", backbone),
        ("segmenter", "thin", network),
        ("segmenter/recipe", "focal", loss),
        ("callbacks", "weight_norm", callback),
        ("stage", "coverage", settings),
    ):
        (tmp_path / "my_settings" / group).mkdir(parents=True, exist_ok=True)
        (tmp_path / "my_settings" / group / f"{name}.yaml").write_text(text, encoding="utf-8")
    write_meadows(tmp_path / "raw")
    modules = ("thin", "focal", "weight_norm", "class_coverage")
    for name, text in zip(modules, blocks("extend.md", "python"), strict=True):
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(tmp_path)

    with initialize_config_module("ome.conf", version_base="1.3"):
        shared = [
            "hydra.searchpath=[file://my_settings]",
            "dataset=meadows",
            "backbone=light",
            "segmenter=thin",
            "segmenter/recipe=focal",
            "callbacks=weight_norm",
            "dataset.raw=raw",
            *QUICK,
        ]
        config = compose("config", overrides=[*shared, "stage=all", "stage.until=seg"])
        counting = compose(
            "config", overrides=[o for o in [*shared, "stage=coverage"] if not o.startswith("stage.")]
        )
    launch(config)
    launch(counting)

    history = read_csv(stage_folder(config, "cam") / "history.csv")
    assert any(row["name"] == "train/weight_norm" and float(row["value"]) > 0 for row in history)
    trained = stage_folder(config, "seg") / "weak"
    assert any(row["name"] == "train/loss_0" for row in read_csv(trained / "history.csv"))
    card = SegmenterCard.read(trained)
    assert card.segmenter == "thin.ThinNet"
    assert type(card.load(trained).network).__name__ == "ThinNet"
    folder = stage_folder(config, "coverage")
    written = {row["class"]: float(row["percent"]) for row in read_csv(folder / "coverage.csv")}
    masks = np.stack([read_png(path) for path in stage_folder(config, "pseudo").glob("masks/*/*.png")])
    assert len(masks) == 4 - 1  # the right half of `east` is all shadow: no tag
    for index, name in enumerate(("grass", "shrub", "soil")):
        assert written[name] == pytest.approx(100 * (masks == index).sum() / (masks < 3).sum(), abs=0.05)
    assert written["soil"] == pytest.approx(100 / 3, abs=0.05)  # a tile with one tag is of that class
    assert SceneIndex.read(Path(config.scenes)).palette.names == ("grass", "shrub", "soil")


def test_every_setting_is_listed_with_what_it_takes_and_means() -> None:
    page = docs_settings.settings_tables()
    rows = re.findall(r"^\| `([^`]+)` \| [^|]* \| ([^|]*) \| ([^|]+) \|$", page, flags=re.MULTILINE)
    listed = {key: (takes, meaning) for key, takes, meaning in rows}
    assert listed["stage.cam.momentum"] == ("a number of at least 0 and below 1", "momentum of SGD")
    for address, hint in addresses(Settings):
        if address == "dataset.images":  # by kind
            assert ("", hint.meaning) in [what for key, what in listed.items() if key.startswith(address)]
        elif not address.endswith(".name"):  # each option has its own
            assert listed[address] == (expected(hint), hint.meaning)


def test_every_setting_is_listed_with_its_default() -> None:
    page = docs_settings.settings_tables()
    with initialize_config_module("ome.conf", version_base="1.3"):
        config = compose("config", overrides=["stage=cam", "dataset=potsdam"])
    listed = dict(re.findall(r"^\| `([^`]+)` \| `([^`]+)` \|", page, flags=re.MULTILINE))
    for key in (
        "stage.cam.checkpoint",
        "crf.bilateral_sxy",
        "segmenter.recipe.ohem",
        "prediction.stride",
        "seed",
    ):
        value = OmegaConf.select(config, key)
        assert listed[key] == OmegaConf.to_yaml(OmegaConf.create({"v": value}))[3:].strip(), key
    for path in (ROOT / "conf").rglob("*/*.yaml"):
        assert f"={path.stem}`" in page, path


@pytest.mark.parametrize(
    "option", ["trainer=ddp", "classifier=one_vs_all", "optimizer=adamw", "dataset=synthetic"]
)
def test_an_option_has_what_the_group_shares_and_what_it_lists_otherwise(option: str) -> None:
    group = option.partition("=")[0]
    _, section = docs_settings.settings_tables().split(f"## `{group}=`\n", 1)
    shared, *options = section.split("\n## `")[0].split("\n### `")
    own = next(text for text in options if text.startswith(f"{option}`"))
    shown = {}
    for text in (shared, own):
        shown |= dict(re.findall(r"^\| `([^`]+)` \| `([^`]+)` \|", text, flags=re.MULTILINE))
    explained = re.findall(
        r"^\| `([^`]+)` .* \| [^|]*\w[^|]* \|$", "\n".join((shared, *options)), flags=re.MULTILINE
    )
    assert len(explained) == len({*explained})
    with initialize_config_module("ome.conf", version_base="1.3"):
        config = compose("config", overrides=["stage=cam", option])
    for key, default in shown.items():
        if "..." not in default and "$" not in default and default != "???":
            assert OmegaConf.select(config, key) == OmegaConf.create(f"value: {default}").value, key


def test_comments_of_a_yaml_file_are_read_beside_and_above(tmp_path: Path) -> None:
    path = tmp_path / "example.yaml"
    path.write_text(
        "# What it is.\n#   a command\n# More of it.\ndefaults: [other]\n"
        "a: 1  # beside\n# above\n# it\nb: {c: [1,\n    2]}\nnested:\n  d: 'x # y'  # last\n",
        encoding="utf-8",
    )
    assert docs_settings.file_header(path) == "What it is. More of it.\n\n```\na command\n```"
    assert docs_settings.settings(path) == [
        ("a", "1", "beside"),
        ("b", "{c: [1, 2]}", "above it"),
        ("nested.d", "'x # y'", "last"),
    ]


def test_the_examples_of_own_cams_run() -> None:
    names: dict[str, Any] = {}
    for block in blocks("own_cams.md", "python"):
        exec(block, names)  # noqa: S102
    assert set(np.unique(names["label"].mask)) <= {0, 2}
    assert names["refined"].shape == (5, 64, 96)
    assert names["cam"].grad.abs().sum() > 0


def test_error_lines_are_those_of_the_code() -> None:
    with pytest.raises(UserError, match=r"^unknown stage 'paint': choose one of prepare, labels"):
        selected_stages(OmegaConf.create({"stage": {"name": "paint"}}))
    assert "- `unknown <what> '<name>': choose one of <known, ...><hint>`" in docs_errors.error_lines()


@pytest.mark.parametrize("kind", UserError.__subclasses__(), ids=lambda kind: kind.__name__)
def test_error_lines_of_every_kind_of_user_error_are_listed(kind: type[UserError]) -> None:
    assert kind.__name__ in docs_errors._errors()


def test_pages_hold_the_tables_of_the_code_as_it_is() -> None:
    for page in docs_hooks.DOCS.glob("*.md"):
        text = page.read_text(encoding="utf-8")
        assert text == docs_hooks.filled(text), f"{page.name}: run python scripts/docs_hooks.py"


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda p: p.name
)
def test_links_lead_to_files_of_the_repository(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", text)
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


@pytest.mark.parametrize(
    ("pattern", "pages"),
    [
        (
            r"([\d.]+)\s+%\s+\((DeepGlobe|Vaihingen|Potsdam)\b",
            ("README.md", "docs/index.md", "docs/results.md"),
        ),
        (
            r"(\d+\s+min\s+\d+\s+s)\s+(?:with\s+the\s+installation|on\s+two\s+cores)",
            ("README.md", "docs/results.md"),
        ),
        (r"(\d+ to \d+) minutes", ("README.md", "docs/index.md")),
    ],
    ids=["accuracy", "demo", "demo elsewhere"],
)
def test_figures_of_several_pages_agree(pattern: str, pages: tuple[str, ...]) -> None:
    texts = [(ROOT / page).read_text(encoding="utf-8") for page in pages]
    first, *others = [
        {re.sub(r"\s+", " ", " ".join(match.groups())) for match in re.finditer(pattern, text)}
        for text in texts
    ]
    assert first
    assert others == [first] * len(others)


def test_every_page_is_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for page in (ROOT / "docs").glob("*.md"):
        assert f": {page.name}" in navigation


@pytest.mark.parametrize(
    "elsewhere",
    [
        '<script src="https://example.org/a.js"></script>',
        "<link rel=stylesheet href=//example.org/a.css>",
        '<img alt="a" src="http://example.org/a.png">',
        '<pre class="mermaid"><code>flowchart LR</code></pre>',
    ],
)
def test_pages_load_nothing_from_elsewhere(elsewhere: str) -> None:
    page = '<link rel="canonical" href="https://example.org/"><script src="../a.js"></script><a href="https://a">a</a>'
    assert docs_hooks.on_post_page(page) == page
    with pytest.raises(ValueError, match="loads from another host"):
        docs_hooks.on_post_page(page + elsewhere)
