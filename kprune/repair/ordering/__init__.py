"""Which units to give up when those that are left are refitted: Optimal Brain Surgeon over all layers at once.

covariances.py  what went into each consumer on data
candidates.py   groups of units that may go, and which positions go with them
linear_part.py  one linear map as units go: the cost of each, once the others make up for it
savings.py      what the model is smaller by when a group goes
readers.py      what reads units and is no consumer
elimination.py  the order in which groups go
"""
