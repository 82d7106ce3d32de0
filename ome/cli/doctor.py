"""`ome doctor` checks the installation, the machine and the data. It does not load torch."""

import os
import platform
import shutil
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final, Literal, NamedTuple

from omegaconf import DictConfig
from rich.markup import escape

from ome.cli.commands import is_key_value, words_of_run
from ome.cli.errors import lines_for_user
from ome.cli.presets import composed, gpus
from ome.cli.words import as_hydra_reads, check_words, is_setting
from ome.config.checks import numbers_to_text, type_faults
from ome.config.raw_data import is_folder_of_images, raw_folder, raw_layout
from ome.data.raw import RawLayout, raw_files
from ome.data.raw_split import resolve_split
from ome.data.scene_index import INDEX, SceneIndex
from ome.errors import UserError, no_folder, shell_word
from ome.extras import EXTRAS, missing_modules
from ome.pipeline.manifest import NAME as MANIFEST
from ome.pipeline.manifest import versions
from ome.pipeline.marks import artefacts_in
from ome.pipeline.registry import SIDE_STAGES, STAGES
from ome.progress import console

SMALL_DISK: Final = 20 << 30
"""Bytes that the prepared Potsdam dataset and its results may need."""

HELP: Final = """usage: ome doctor [RUN] [KEY=VALUE ...]

Says which versions, extras and devices there are, and whether data and results of a command are there. Type
the folder of a run, such as runs/valley, or the settings of a command, such as dataset=potsdam
dataset.raw=/data/Potsdam."""

COLOURS: Final = {"ok": "green", "note": "yellow", "wrong": "red"}


Kind = Literal["ok", "note", "wrong"]


class Finding(NamedTuple):
    """One line of the report.

    Attributes:
        kind: `wrong` for what makes a run fail, `note` for what is optional, else `ok`.
        subject: Topic in one word.
        text: Description of the finding.
    """

    kind: Kind
    subject: str
    text: str


def main(overrides: Sequence[str]) -> int:
    """Prints the findings.

    Args:
        overrides: The folder of a run, or settings as on its command line.

    Returns:
        1 if something would make a run fail, else 0.
    """
    if {"-h", "--help"} & {*overrides}:
        print(HELP)  # noqa: T201
        return 0
    findings, here = [*_installed(), *_machine()], Path.cwd()
    try:
        config = _composed(overrides)
        numbers_to_text(config)
        # The settings of a run are relative to its command's folder, which is the working folder now.
        base = Path() if Path.cwd() == here else Path.cwd()
        faults = [Finding("wrong", "settings", line) for _, line in type_faults(config)]
        # With a value of a wrong type nothing can be looked up.
        findings += faults or [*_raw_data(config, base), *_results(config, base)]
    except Exception as error:
        if not (about := _about(error, "wrong")):
            raise
        findings += about
    for kind, subject, text in findings:
        console.print(f"[{COLOURS[kind]}]{kind:5}[/] {subject:10} {escape(text)}")
    wrong = sum(finding.kind == "wrong" for finding in findings)
    console.print(f"{wrong} of {len(findings)} checks failed" if wrong else "nothing is wrong")
    return 1 if wrong else 0


def _about(error: Exception, kind: Kind) -> list[Finding]:
    """The findings about an error; none for a mistake of ours."""
    subject = "data" if isinstance(error, UserError | OSError) else "settings"
    return [Finding(kind, subject, line) for line in lines_for_user(error)]


def _composed(overrides: Sequence[str]) -> DictConfig:
    settings = list(overrides)
    if settings and not settings[0].startswith(("-", "~")) and not is_key_value(settings[0]):
        settings[:1] = words_of_run(Path(settings[0]))
    settings = sorted(as_hydra_reads(settings), key=is_setting)
    check_words(settings)
    return composed(settings)


def _installed() -> Iterator[Finding]:
    releases = dict(versions())
    known = platform.python_version_tuple()[:2] in {("3", "11"), ("3", "12")}
    yield Finding(
        "ok" if known else "note",
        "python",
        releases.pop("python") + ("" if known else ": tested are 3.11 and 3.12"),
    )
    for package in ("rasterio", "hydra-core", "torchmetrics", "albumentations"):
        try:
            releases[package] = version(package)
        except PackageNotFoundError:
            releases[package] = "not installed"
    absent = [name for name, found_version in releases.items() if found_version == "not installed"]
    # A checkout works without being installed.
    absent = [name for name in absent if name != "ome"]
    listed = ", ".join(f"{name} {found_version}" for name, found_version in releases.items())
    yield Finding("wrong" if absent else "ok", "packages", listed)
    for extra in EXTRAS:
        missing = missing_modules(extra)
        remedy = f'without {" and ".join(missing)}: pip install "ome[{extra}]"' if missing else "installed"
        yield Finding("note" if missing else "ok", "extra", f"{extra}: {remedy}")


def _machine() -> Iterator[Finding]:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    cores = len(os.sched_getaffinity(0))
    yield Finding("ok", "machine", f"{cores} cores, {memory:.0f} GB of memory")
    yield Finding(
        *(("ok", "gpu", gpu) if (gpu := gpus()) else ("note", "gpu", "none: trainer=auto takes the CPU"))
    )
    free = shutil.disk_usage(Path.cwd()).free
    kind: Kind = "ok" if free > SMALL_DISK else "note"
    yield Finding(kind, "disk", f"{free / (1 << 30):.0f} GB free in {Path.cwd()}")


def _raw_data(config: DictConfig, base: Path) -> Iterator[Finding]:
    name = config.dataset.name
    if config.dataset.get("town") is not None:
        yield Finding("ok", "data", f"{name} is drawn when it is prepared")
        return
    prepared = (base / config.scenes / MANIFEST).exists()
    try:
        yield from _sources(config, raw_layout(config), base / raw_folder(config))
    except (UserError, OSError) as error:
        if not (about := _about(error, "note" if prepared else "wrong")):
            raise
        yield from about


def _sources(config: DictConfig, layout: RawLayout, raw: Path) -> Iterator[Finding]:
    if not raw.is_dir():
        raise UserError(f"dataset.raw={no_folder(raw)}: give the folder of the archives")
    images, masks = raw_files(layout, raw)
    listed = [scene for scene, _ in resolve_split(layout.split, raw, images)]
    kinds = [("images", images)]
    if masks is not None:
        kinds.append(("masks", masks))
    for kind, files in kinds:
        missing = [scene for scene in listed if files.find(scene) is None]
        needed = not (kind == "masks" and is_folder_of_images(config))
        line = f"{len(listed) - len(missing)} of {len(listed)} {kind} in {files.where}"
        if missing:
            line += f"; missing: {', '.join(missing[:5])}{', ...' if len(missing) > 5 else ''}"
        yield Finding(("wrong" if needed else "note") if missing else "ok", "data", line)


def _results(config: DictConfig, base: Path) -> Iterator[Finding]:
    scenes, run = base / config.scenes, base / config.run_dir
    if (scenes / INDEX).exists():
        index = SceneIndex.read(scenes)
        yield Finding("ok", "scenes", f"{len(index.scenes)} prepared in {scenes}")
    else:
        yield Finding("note", "scenes", f"none prepared in {scenes}: stage=prepare does that")
    finished, unfinished = (sorted(names, key=_place) for names in artefacts_in(run))
    text = f"{run}: finished are {', '.join(finished)}" if finished else f"{run}: no stage is finished"
    yield Finding("ok" if finished else "note", "run", text)
    if unfinished:
        line = f"unfinished are {', '.join(unfinished)}: ome resume {shell_word(run)}"
        yield Finding("note", "run", f"{run}: {line}")


def _place(stage: str) -> int:
    """The place of a stage in the order in which stages run."""
    order = [*STAGES, *SIDE_STAGES]
    return order.index(stage) if stage in order else len(order)
