"""Layers that are not Keras's own.

applications.py  those of keras.applications
keras_hub.py     those of KerasHub's backbones
"""
