"""Selects the scenes of an index that are scored, and those that are mapped."""

from ome.data.scene_index import Scene, SceneIndex, SplitName


def evaluation_split(index: SceneIndex) -> SplitName:
    """The split for scoring segmentation: the first of test, val and train with reference masks."""
    names: tuple[SplitName, ...] = ("test", "val", "train")
    return next(name for name in names if name == "train" or any(s.mask for s in index.split(name)))


def mapped_scenes(index: SceneIndex) -> list[Scene]:
    """The scenes to predict: those of the test split, and those that segmentation is scored on.

    With neither masks nor a test split, those of the val or the train split.
    """
    scored = [scene for scene in index.split(evaluation_split(index)) if scene.mask]
    test = [scene for scene in index.split("test") if scene not in scored]
    return scored + test or index.split("val") or index.split("train")
