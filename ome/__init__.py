"""Weakly supervised land-cover mapping: from image-level tags to scored, georeferenced maps."""

__version__ = "0.1.0"
