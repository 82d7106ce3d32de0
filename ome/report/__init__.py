"""The page of a run, and the scores of several runs."""
