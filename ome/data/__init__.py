"""Scenes and their index, tiles as windows into scenes, tags, transforms and LightningDataModules."""
