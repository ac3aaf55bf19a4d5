"""The only room that imports TensorFlow: models are loaded and run here, by plain Keras.

keras_runtime   Keras, imported without its chatter; a model file loaded; a model run in batches
inputs          random inputs that a model accepts, and inputs from an .npz file
lost            what a pruned file says it lost, replayed on the original's labels
reference       the original with what a pruned file lost silenced, to compare with
verify          runs both and compares them
timing          how long both take, side by side
metrics         how well a model does on labelled data
sensitivity     what each group of layers costs when it alone is cut
verification    what came of it, as data
tuning          trains a model file on; training: the loop over epochs; tuned: what came of it
examples        what it learns from
iterating       cuts and trains in rounds; iteration: what came of it, as data
work_folder     what interrupted work leaves; checkpoint: of a training; rounds: of an iteration
distilling      a teacher's outputs, learned as well; held_zeros: zeroed units kept at zero
flatten         a model of a class of its own, written as a plain graph
plain           the same on the model itself; configs that do not rebuild their layer, mended
subclassed      the graph of a call() that exists in code only
foreign         the classes of other packages that a file names, and their import
drawing         the code of a custom layer, run on symbolic tensors: a graph; numbering: its names
lambda_code     the functions of Lambda layers, loaded and drawn
noise           models that draw random numbers, run without
proof           whether Keras makes of such a layer, once units are gone, what is expected
"""
