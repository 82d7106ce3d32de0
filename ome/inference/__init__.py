"""Trained networks applied to tiles and to whole scenes."""
