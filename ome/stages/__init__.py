"""The stages, one module each; besides `ome.run`, `cli` and `config` only they see the configuration."""
