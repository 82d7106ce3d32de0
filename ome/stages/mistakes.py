"""What Hydra and OmegaConf say about a wrong override, in one line."""

import difflib

from omegaconf.errors import OmegaConfBaseException


def explain(error: Exception) -> str:
    """Puts what Hydra and OmegaConf say about a wrong override into one line."""
    cause = error.__cause__
    if isinstance(cause, OmegaConfBaseException) and cause.parent_node is not None:
        known = [str(key) for key in cause.parent_node]
        near = difflib.get_close_matches(str(cause.key), known, n=1)
        wrong = cause.full_key or cause.key
        hint = f"did you mean {near[0]}?" if near else f"known are: {', '.join(known)}"
        return f"there is no config key {wrong}: {hint}"
    line = " ".join(str(error).split()).partition(" Config search path:")[0]
    if "'hydra/sweeper" in line or "'hydra/launcher" in line:
        line += '; optuna, joblib and submitit come with pip install "ome[sweep]"'
    return line
