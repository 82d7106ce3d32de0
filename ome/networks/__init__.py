"""Plain networks: backbones, the SEAM classifier with its pixel correlation module, segmenters."""
