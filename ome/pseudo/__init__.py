"""From CAMs to pseudo masks: fusion, random walk, uncertainty by response scaling."""
