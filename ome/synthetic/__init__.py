"""The procedural town: scenes with a reference, without a download."""
