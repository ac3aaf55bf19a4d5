"""Training on what is left.

tune.py         `kprune tune`
tune_loop.py    epoch after epoch; tune_result.py: what came of it
settings.py     how to train
distilling.py   a teacher beside the loss
gentle_start.py steps that do not undo a repair
held_zeros.py   zeroed units held at zero; sparsity.py: units brought near it
variables.py    which variable of a live model is which weight of its file
checkpoint.py   the last finished epoch and the best one
work_folder.py  the folder beside the output that holds them
"""
