"""Custom code that a model needs, traced if the user trusts it (--trust).

code_tracer.py    layers traced by Keras on symbolic inputs
keras_patches.py  what Keras does differently meanwhile
rebuild_check.py  how Keras rebuilds a layer from a smaller config
subclassed.py     the call() of a keras.Model subclass, traced once
unfold.py         a model of a custom class as a plain graph
flatten.py        `kprune flatten`, and files that are opened in this way
"""
