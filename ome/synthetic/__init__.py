"""The procedural town: generated scenes with a reference, which need no download."""
