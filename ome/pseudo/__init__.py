"""From CAMs to pseudo masks: fusion, DenseCRF on a shared lattice, response-scaling uncertainty."""
