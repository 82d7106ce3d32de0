"""Loggers, and Weights & Biases."""
