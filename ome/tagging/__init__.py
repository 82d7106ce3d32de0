"""`ome tags`: a web page on this machine for tagging images with the keyboard."""

from ome.tagging.command import main

__all__ = ["main"]
