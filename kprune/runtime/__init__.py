"""Keras and TensorFlow themselves, imported only where a model is run.

keras_import.py        Keras, imported without its chatter
inert.py               the gate: nothing in a file runs unless it is trusted
keras_runtime.py       a model file loaded by the Keras that wrote it; a model run in batches
tensorflow_runtime.py  TensorFlow, for SavedModels
custom_classes.py      classes that a file names and Keras does not know
lambda_code.py         the functions of Lambda layers, of files that are trusted
numbering.py           names of layers as Keras numbers them
"""
