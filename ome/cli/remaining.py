"""What an interrupted stage still has to do: steps of trainings, and files of tiles.

Importing this module does not load torch.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from ome.data.tiles import Length, Tile
from ome.pipeline.layout import NETWORK
from ome.pipeline.marks import PartialResult


def steps_left(
    length: Length, done: PartialResult, folders: Sequence[Path], validation: int
) -> tuple[int, int]:
    """Remaining steps of the trainings in the folders, and tiles that they will still validate."""
    steps = [length.total_steps - _steps_done(done, folder, length) for folder in folders]
    epochs = sum(math.ceil(left / length.steps_per_epoch) for left in steps)
    return sum(steps), epochs * validation


def _steps_done(done: PartialResult, folder: Path, length: Length) -> int:
    import torch  # noqa: PLC0415 - as the stage will

    from ome.training.fit import CHECKPOINT  # noqa: PLC0415

    if done.has(folder / NETWORK):
        return length.total_steps
    checkpoint = folder / f"{CHECKPOINT}.ckpt"
    if not done.has(checkpoint):
        return 0
    try:
        state = torch.load(done.folder / checkpoint, map_location="cpu", weights_only=True, mmap=True)
        return min(int(state["global_step"]), length.total_steps)
    except Exception:  # noqa: BLE001 - with a damaged checkpoint the training starts over
        return 0


def files_missing(
    tiles: Sequence[Tile] | None, done: PartialResult, folder: Path, path_of: Callable[[Path, Tile], Path]
) -> int | None:
    """Number of tiles whose file does not exist yet."""
    return None if tiles is None else sum(not done.has(path_of(folder, tile)) for tile in tiles)
