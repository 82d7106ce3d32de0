"""The fully connected CRF on a shared permutohedral lattice, for cores and for a GPU."""
