"""Whether what a stage reads has changed while the stage ran: its result would be of two states."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig

from ome.distributed.collectives import gather, is_rank_zero
from ome.errors import UserError, few
from ome.pipeline.artifacts import Artefact
from ome.pipeline.checksums import damaged
from ome.pipeline.manifest import identity
from ome.pipeline.marks import read_if_whole
from ome.pipeline.place import Place
from ome.pipeline.stage import Stage


class Snapshot(NamedTuple):
    """What a stage reads, as it was before the stage ran.

    Attributes:
        artefacts: The results of other stages, by name.
        files: Each external file and its `identity`.
        sources: What `Stage.external_files` returned.
    """

    artefacts: Mapping[str, Artefact]
    files: list[tuple[Path, list[Any]]]
    sources: list[Any]


@contextmanager
def unchanged(stage: Stage, config: DictConfig, snapshot: Snapshot, place: Place) -> Iterator[None]:
    """Refuses the result of the block, in which a stage runs, if what it reads has changed since.

    Raises:
        UserError: It has changed, in every process, also if the block failed; the partial folder will not be
            resumed.
    """
    try:
        yield
    except BaseException as error:  # also Ctrl-C, after which the folder would be resumed
        if changed := _changed(stage, config, snapshot, failed=True):
            refused = _refused(stage, place, changed)
            if isinstance(error, Exception):
                raise refused from error
        raise
    # Rank 0 decides for all, since processes may briefly see a shared folder differently.
    if changed := gather(_changed(stage, config, snapshot) if is_rank_zero() else [])[0]:
        raise _refused(stage, place, changed)


def _refused(stage: Stage, place: Place, changed: list[str]) -> UserError:
    if is_rank_zero():
        place.forget()
    return UserError(f"{few(changed)} changed while stage={stage.name} ran: type the same command again")


def _changed(stage: Stage, config: DictConfig, snapshot: Snapshot, *, failed: bool = False) -> list[str]:
    """Names what has changed.

    New files are not named, e.g. scores of other runs: the next command finds them. Neither is a scene whose
    server does not answer; it is not asked if the stage has failed.
    """
    results = [str(one.folder) for one in snapshot.artefacts.values() if _is_replaced(one, failed=failed)]
    files = [str(path) for path, before in snapshot.files if identity(path) != before]
    if results or files or failed or stage.external_files is None:
        return [*results, *dict.fromkeys(files)]
    with suppress(UserError, OSError):
        # As texts in a set: comparing each entry with all others takes minutes for 60,000 files.
        if not {*map(repr, snapshot.sources)} <= {*map(repr, stage.external_files(config))}:
            return ["what it reads outside the run"]
    return []


def _is_replaced(artefact: Artefact, *, failed: bool) -> bool:
    """Whether a result has been replaced, or is being removed, at which a stage that reads it has failed."""
    folder, before = artefact
    # As text, in which nan equals nan.
    if repr(read_if_whole(folder)) != repr(before):
        return True
    try:
        return failed and damaged(folder, before.files, verify=False) != []
    except OSError:
        return True
