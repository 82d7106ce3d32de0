"""The engine that runs stages: artifacts, manifests, locks."""
