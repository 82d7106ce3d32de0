"""The command line: launching, sweeps, one-line errors, `ome doctor`."""
