"""Layers that are not Keras's own: KerasHub's, and those of keras.applications."""
