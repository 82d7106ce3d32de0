"""The story in order, one module a stage; the only code below `ome.run` that sees the configuration."""
