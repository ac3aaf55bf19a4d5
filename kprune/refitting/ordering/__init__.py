"""Which units to give up when those that are left are refitted: Optimal Brain Surgeon over all layers at once.

covariances.py   what went into each consumer on data
candidates.py    groups of units that may go, and which positions go with them
linear_part.py   one linear map as units go: the cost of each, once the others make up for it
savings.py       what the model is smaller by when a group goes
readers.py       what reads units and is no consumer
observations.py  the covariances of all consumers of a model, in one run over data
fisher.py        how much the model's own answers hang on each output of its kernels
on_data.py       the same of a model file, found out when it is first asked for
elimination.py   the order in which groups go
"""
