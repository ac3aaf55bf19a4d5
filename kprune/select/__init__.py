"""Which units: what users write, and what it means for a model."""
