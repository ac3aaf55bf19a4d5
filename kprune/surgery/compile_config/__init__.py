"""The compile settings of a model from which classes are removed.

class_fields.py    options of losses and metrics that count classes
compile_config.py  which loss or metric is of which output, and what becomes of it
"""
