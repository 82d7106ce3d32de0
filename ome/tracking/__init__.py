"""Loggers of trainings: CSV, TensorBoard, Weights & Biases; the latter also shows stages."""
