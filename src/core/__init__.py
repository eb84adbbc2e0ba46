"""Records, errors, paths, caches and signals: what every other package may import."""
