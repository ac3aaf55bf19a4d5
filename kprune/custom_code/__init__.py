"""Code that a model brings along, traced where the user trusts it (--trust).

code_tracer.py    layers traced by Keras on symbolic inputs
keras_patches.py  what Keras does otherwise meanwhile
rebuild_check.py  what Keras makes of a layer that is rebuilt from a smaller config
subclassed.py     the call() of a keras.Model subclass, traced once
unfold.py         a model of a class of its own as a plain graph
flatten.py        `kprune flatten`, and files that are opened so
"""
