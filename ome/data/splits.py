"""Which scenes of an index are scored, and which are mapped."""

from ome.data.scene_index import Scene, SceneIndex, SplitName


def evaluation_split(index: SceneIndex) -> SplitName:
    """The split that segmentation is scored on: test, val or train, the first with reference masks."""
    names: tuple[SplitName, ...] = ("test", "val", "train")
    return next(name for name in names if name == "train" or any(s.mask for s in index.split(name)))


def mapped_scenes(index: SceneIndex) -> list[Scene]:
    """The scenes that are predicted: those of the test split, and those that segmentation is scored on.

    Where there are no masks and no test split either, those of the val or the train split.
    """
    scored = [scene for scene in index.split(evaluation_split(index)) if scene.mask]
    test = [scene for scene in index.split("test") if scene not in scored]
    return scored + test or index.split("val") or index.split("train")
