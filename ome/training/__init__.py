"""LightningModules, losses, learning-rate schedule and callbacks."""
