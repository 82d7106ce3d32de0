"""A page on this machine where a person sets the tags of images with the keyboard."""

from ome.tagging.command import main

__all__ = ["main"]
