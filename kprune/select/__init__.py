"""Selecting units: what users write, and what it means for a model.

naming/   units that are named
ranking/  units that are chosen by a score
plans/    choices written down, and curves of sensitivity
"""
