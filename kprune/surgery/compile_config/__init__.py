"""What a model was compiled with, where classes go.

class_fields.py    options of losses and metrics that count classes
compile_config.py  which loss or metric is of which output, and what becomes of it
"""
