"""Networks as plain `nn.Module`s: backbones, the SEAM classifier, AffinityNet, segmenters; their weights."""
