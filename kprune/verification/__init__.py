"""Two models run side by side.

verify.py           `kprune verify`
verify_result.py    what it found
gates.py            limits that it has to keep
repaired.py         a file that was refitted
cut_tensors.py      inputs and outputs of which some are gone
compare.py          how far outputs are apart
masked_original.py  the reference: the original with every pruned unit masked
replay.py           which units those are, by the steps that the file records
without_layers.py   the same for layers that went as a whole
token_inputs.py     ids of tokens, renumbered
timing.py           how long a batch takes
verify_graphs.py    SavedModels; masked_graphs.py: their reference
signature_runs.py   signatures, run with as many samples as they take
"""
