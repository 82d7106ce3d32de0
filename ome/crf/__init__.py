"""The fully connected CRF on a shared permutohedral lattice, on a CPU or a GPU."""
