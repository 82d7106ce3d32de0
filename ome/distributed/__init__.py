"""Several processes that share the work: ranks, collectives, signals, synchronised BatchNorm."""
