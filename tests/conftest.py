"""A town small enough to run every stage in a test."""

import fcntl
import gc
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from copy import deepcopy
from functools import cache, partial, partialmethod
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from pkgutil import walk_packages
from socket import socket

if not Path("/dev/nvidia0").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # before Triton is imported: its kernels run on the CPU

import pytest
import torch
from hydra import compose, initialize_config_module
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.hydra import Hydra
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult, ConfigSource
from omegaconf import DictConfig

import ome
from ome.__main__ import main
from ome.cli.launch import check_command, launch
from ome.errors import UserError
from ome.geo import cog
from ome.pipeline.registry import STAGES
from ome.progress import say_once
from tests.browser import browser, chromium  # noqa: F401 - fixtures for all

CONF = Path(ome.__file__).parent / "conf"

_parsed: dict[tuple[str, str], bytes] = {}
"""Every file of `conf/`, pickled: Hydra changes what it reads, and YAML takes thirty times as long."""

TINY = (
    "dataset=synthetic",
    "dataset.raw=raw",
    "dataset.split.train=['2_10','2_11']",
    "dataset.split.test=['2_13']",
    "dataset.tile={size: 64, stride: 64}",
    "dataset.filter.minimum=0.02",
    "dataset.town.size=256",
    "backbone=encoder",
    "backbone.name=tu-test_resnet",
    "backbone.output_stride=16",
    "classifier.zoom=1",
    "segmenter=fpn",
    "segmenter.recipe.steps=4",
    "segmenter.recipe.steps_per_epoch=2",
    "segmenter.recipe.batch=2",
    "segmenter.recipe.validation_tiles=4",
    "trainer=cpu",
    "trainer.precision=32-true",
    "trainer.workers=0",
    "prediction.flip=false",
)
"""Two training scenes and one test scene of 256 pixels; a few steps of training."""

TINY_STAGES = {
    "cam.epochs": "3",
    "cam.batch": "4",
    "cam.validation_tiles": "4",
    "cam.export.scales": "[1.0]",
    "affinity.epochs": "1",
    "affinity.threads": "1",
    "pseudo.threads": "1",
    "refine.rounds": "1",
    "refine.confident": "null",
    "refine.scales": "[1.0]",
    "refine.flip": "false",
    "refine.settled": "1.1",
    "report.tiles": "2",
    "report.figures": "false",
}


def tiny(stage: str = "all") -> list[str]:
    """The overrides of a tiny run of one stage, or of all."""
    return [f"stage={stage}", *TINY, *(f"stage.{key}={value}" for key, value in TINY_STAGES.items())]


def compose_config(overrides: Sequence[str]) -> DictConfig:
    """Composes a configuration as the command line does.

    Configurations of the same options, which differ in values only, are composed once: it takes a third of a
    second.
    """
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    values = [one for one in parsed if one.type == OverrideType.CHANGE and not _is_option(one)]
    options = tuple(str(one.input_line) for one in parsed if one not in values)
    config = deepcopy(_composed(options))
    ConfigLoaderImpl._apply_overrides_to_config(values, config)
    return config


def _is_option(override: Override) -> bool:
    key = override.key_or_group
    chooses = override.package is not None or key.startswith("hydra.") or (CONF / key).is_dir()
    return chooses or override.is_sweep_override()  # Hydra refuses a sweep here


@cache
def _composed(options: tuple[str, ...]) -> DictConfig:
    with initialize_config_module("ome.conf", version_base="1.3"):
        return compose("config", overrides=list(options))


@pytest.fixture
def run_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., DictConfig]:
    """Runs stages in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*overrides: str) -> DictConfig:
        config = compose_config(overrides)
        launch(config)
        return config

    return run


@pytest.fixture(scope="session", autouse=True)
def _everything_imported() -> Iterator[None]:
    """Imports all modules once, and not in each of the copies of this process in which commands are typed.

    So are the networks that the checks of a command build: their results are cached.
    """
    for module in walk_packages(ome.__path__, "ome."):
        with suppress(ImportError):  # of an extra
            import_module(module.name)
    # A first backward pass after fake tensors would start threads for a GPU that is not there, and no copy of
    # this process could train.
    torch.ones(1, requires_grad=True).sum().backward()
    Plugins.instance()
    package = SourcesRegistry.instance().resolve("pkg")
    package.load_config = partialmethod(_load_once, load=package.load_config)  # type: ignore[assignment]
    for words in (tiny(), ["stage=all"]):
        with suppress(UserError):  # of a missing extra
            check_command(compose_config(words))
    for path in CONF.rglob("*.yaml"):
        package("main", "pkg://ome.conf").load_config(path.relative_to(CONF).with_suffix("").as_posix())
    gc.freeze()  # else every collection visits what was imported, and copies its pages into each copy
    yield
    gc.unfreeze()


def _load_once(source: ConfigSource, config_path: str, load: Callable[..., ConfigResult]) -> ConfigResult:
    if source.path not in {"ome.conf", "hydra.conf"}:  # the others may change
        return load(source, config_path)
    if (source.path, config_path) not in _parsed:
        _parsed[source.path, config_path] = pickle.dumps(load(source, config_path))
    parsed: ConfigResult = pickle.loads(_parsed[source.path, config_path])
    return parsed


def pytest_configure() -> None:
    """Keeps files of tests in memory where there is room: a disk takes milliseconds to sync each."""
    memory = Path("/dev/shm")  # noqa: S108 - pytest makes a folder of its own in it
    if not os.access(memory, os.W_OK) or os.statvfs(memory).f_flag & os.ST_NOEXEC:
        return
    if shutil.disk_usage(memory).free > 4 << 30:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(memory))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sorts files that wait for the compiled CRF to the end: one worker compiles it, see `_compiled`."""
    texts = {path: path.read_text(encoding="utf-8").lower() for path in {item.path for item in items}}
    words = ("crf", "tiny(", "tiny_run", "forked(")
    items.sort(key=lambda item: any(word in texts[item.path] for word in words))


@pytest.fixture(autouse=True)
def _nothing_said_yet() -> None:
    """Lets each test print what is said once: folders of tests that passed have the names of later ones."""
    say_once.cache_clear()


@pytest.fixture(scope="session", autouse=True)
def _compiled(request: pytest.FixtureRequest, _everything_imported: None) -> None:
    """Lets the first worker make the run of every stage at once, for which numba compiles the CRF."""
    if os.environ.get("PYTEST_XDIST_WORKER") == "gw0" and any(
        "tiny_run" in item.fixturenames for item in request.session.items
    ):
        request.getfixturevalue("tiny_run")


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an uninterrupted run of every stage. All workers share it: change a copy."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    folder = shared / "tiny_run"
    with (shared / "tiny_run.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "output.txt").exists():
            folder.mkdir(exist_ok=True)
            status, printed = forked(folder, *tiny())
            assert status == 0, printed
            (folder / "output.txt").write_text(printed)
    return folder


def copy_until(stage: str, run: Path, folder: Path) -> Path:
    """Copies the folder of a run of every stage, but for what comes after a stage.

    Args:
        stage: The last stage whose result is copied.
        run: Folder of `tiny_run`.
        folder: The copy, which may exist.

    Returns:
        The copy.
    """
    later = STAGES[STAGES.index(stage) + 1 :]
    shutil.copytree(run, folder, ignore=shutil.ignore_patterns(*later, "logs"), dirs_exist_ok=True)
    return folder


def forked(folder: Path, *overrides: str, sabotage: Callable[[], object] | None = None) -> tuple[int, str]:
    """Types a command line in a folder, in a copy of this process: nothing has to be imported again.

    Args:
        folder: Where it runs.
        overrides: As typed.
        sabotage: Called in the copy before the run: what it breaks is whole here.

    Returns:
        Exit status (minus the signal's number where one ended it), and all that was printed.
    """
    return _run_copies(folder, overrides, [sabotage])


def forked_pair(folder: Path, *overrides: str) -> tuple[int, str]:
    """Types a command line in two copies of this process, which find each other as those of torchrun do.

    Args:
        folder: Where they run.
        overrides: As typed.

    Returns:
        The worst exit status, and what both printed: the second has nothing to say.
    """
    with socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return _run_copies(folder, overrides, [partial(_as_torchrun_does, rank, port) for rank in (0, 1)])


def _as_torchrun_does(rank: int, port: int) -> None:
    places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_PORT": port}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", **{name: str(value) for name, value in places.items()}}


def _run_copies(
    folder: Path, overrides: Sequence[str], sabotages: Sequence[Callable[[], object] | None]
) -> tuple[int, str]:
    printed = [folder / f".printed_{number}" for number in range(len(sabotages))]
    processes = [
        get_context("fork").Process(target=_type, args=(folder, overrides, path, sabotage))
        for path, sabotage in zip(printed, sabotages, strict=True)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(600)
    if any(process.is_alive() for process in processes):
        for process in processes:
            process.kill()
        pytest.fail("the run did not end")
    statuses = [process.exitcode or 0 for process in processes]
    return max(statuses, key=abs), "".join(path.read_text() for path in printed)


def _type(
    folder: Path, overrides: Sequence[str], printed: Path, sabotage: Callable[[], object] | None
) -> None:
    import torch  # noqa: PLC0415 - pytest-xdist imports this file also where no test runs

    os.chdir(folder)
    stream = printed.open("w")
    for number in (1, 2):
        os.dup2(stream.fileno(), number)
    sys.stdout = sys.stderr = stream
    GlobalHydra.instance().clear()
    torch.set_num_threads(1)
    cog.THREADS = "1"  # those that GDAL has started stay behind, and it would wait for them
    os.environ["OMP_NUM_THREADS"] = "1"  # else Lightning asks for threads, and theirs did not come along
    if not any(word.startswith(("sweep=", "hydra.mode=", "--config-dir")) for word in overrides):
        # Hydra composes everything just to learn the mode, which only these set.
        Hydra.get_mode = lambda *_, **__: None  # type: ignore[method-assign]
    sys.argv = ["ome", *overrides]
    if sabotage is not None:
        sabotage()
    main()


WITHOUT_TORCH = """
import sys
heavy = "torch", "pytorch_lightning", "segmentation_models_pytorch", "timm", "albumentations", "numba"
sys.modules.update(dict.fromkeys(heavy))  # whoever imports one now fails
from ome.__main__ import main
main()
"""
"""A command line of `ome` that nothing heavy may be loaded for."""


def run_without_torch(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Types a command that must not load torch, nor anything else that takes seconds."""
    return run_words(folder, [sys.executable, "-c", WITHOUT_TORCH, *words])


def command(*overrides: str) -> list[str]:
    """The command line of a run."""
    return [sys.executable, "-m", "ome.run", *overrides]


def run_process(folder: Path, *overrides: str, timeout: float = 240) -> subprocess.CompletedProcess[str]:
    """Runs the command line in a folder, as a user would."""
    return run_words(folder, command(*overrides), timeout)


def run_words(folder: Path, words: Sequence[str], timeout: float = 240) -> subprocess.CompletedProcess[str]:
    """Runs any command in a folder."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "160"}
    return subprocess.run(
        words,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
