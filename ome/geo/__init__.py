"""Windowed reading and writing of rasters, and sliding-window prediction with blending."""
