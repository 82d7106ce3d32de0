"""From settings to objects."""
