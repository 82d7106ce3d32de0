"""Figures, charts and panels."""
