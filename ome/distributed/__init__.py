"""Processes, ranks, collectives, signals and BatchNorm across processes."""
