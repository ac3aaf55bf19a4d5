"""Which units are named: specs, indices, expressions, files, classes by name."""
