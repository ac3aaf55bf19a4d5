"""Keras's own classes and functions that only build and compute, by the names that files give them.

A list of what is harmless, not of what is harmful: a class that a later Keras adds is active until
somebody has read it. Keras 2's classes stand beside those of Keras 3: where a name is in only one
of the two, the other does not find it.

Left out on purpose: Lambda's function is looked at by itself; TFSMLayer, TorchModuleWrapper,
JaxLayer and FlaxLayer load other programs; Keras 2's wrappers of cells (ResidualWrapper …) unpack
bytecode; feature columns open files; and whatever reads data sets, weights or models.
"""

from __future__ import annotations

LAYERS = frozenset(
    """
    Activation ActivityRegularization Add AddLoss AddMetric AdditiveAttention AlphaDropout Attention
    AugMix AutoContrast Average Bidirectional CategoryEncoding CenterCrop Concatenate
    ContrastLimitedAdaptiveHistogramEqualization CustomScaleLayer CutMix Dense Discretization Dot
    Dropout ELU EinsumDense Embedding Equalization Flatten Functional GaussianDropout GaussianNoise
    GroupQueryAttention GroupedQueryAttention HashedCrossing Hashing Identity InputLayer InputSpec
    IntegerLookup Lambda Layer LayerScale LeakyReLU LocallyConnected1D LocallyConnected2D Masking
    MaxNumBoundingBoxes Maximum MelSpectrogram Minimum MixUp Model MultiHeadAttention Multiply
    PReLU Permute Pipeline RandomFourierFeatures ReLU RepeatVector Rescaling Reshape Resizing
    ReversibleEmbedding STFTSpectrogram Sequential Softmax Solarization StochasticDepth StringLookup
    Subtract TextVectorization ThresholdedReLU TimeDistributed Wrapper

    BatchNormalization BatchNormalizationV1 BatchNormalizationV2 GroupNormalization
    LayerNormalization Normalization RMSNormalization SpectralNormalization SyncBatchNormalization
    UnitNormalization

    AbstractRNNCell ConvLSTM1D ConvLSTM2D ConvLSTM3D CuDNNGRU CuDNNLSTM GRU GRUCell GRUCellV1
    GRUCellV2 GRUV1 GRUV2 LSTM LSTMCell LSTMCellV1 LSTMCellV2 LSTMV1 LSTMV2 RNN SimpleRNN
    SimpleRNNCell StackedRNNCells

    RandAugment RandomBrightness RandomColorDegeneration RandomColorJitter RandomContrast RandomCrop
    RandomElasticTransform RandomErasing RandomFlip RandomGaussianBlur RandomGrayscale RandomHeight
    RandomHue RandomInvert RandomPerspective RandomPosterization RandomRotation RandomSaturation
    RandomSharpness RandomShear RandomTranslation RandomWidth RandomZoom

    ClassMethod InstanceMethod InstanceProperty SlicingOpLambda TFOpLambda TensorFlowOpLayer
    """.split()
) | frozenset(
    name.replace("#", str(rank))
    for rank in (1, 2, 3)
    for name in """
    AdaptiveAveragePooling#D AdaptiveMaxPooling#D AveragePooling#D AvgPool#D Conv#D Conv#DTranspose
    Convolution#D Convolution#DTranspose Cropping#D DepthwiseConv#D GlobalAveragePooling#D
    GlobalAvgPool#D GlobalMaxPool#D GlobalMaxPooling#D MaxPool#D MaxPooling#D SeparableConv#D
    SeparableConvolution#D SpatialDropout#D UpSampling#D ZeroPadding#D
    """.split()
)

OPTIMIZERS = frozenset(
    """
    Adadelta Adafactor Adagrad Adam AdamW Adamax Ftrl Lamb Lion LossScaleOptimizer
    LossScaleOptimizerV3 MultiOptimizer Muon Nadam Optimizer OptimizerMap RMSprop SGD
    ScheduleFreeAdamW
    """.split()
)

_SCHEDULES = """
    CosineDecay CosineDecayRestarts ExponentialDecay InverseTimeDecay LearningRateSchedule
    PiecewiseConstantDecay PolynomialDecay
"""

_INITIALIZERS = """
    Constant GlorotNormal GlorotUniform HeNormal HeUniform Identity IdentityInitializer Initializer
    LecunNormal LecunUniform Ones Orthogonal OrthogonalInitializer RandomNormal RandomUniform STFT
    STFTInitializer TruncatedNormal VarianceScaling Zeros
"""

_WEIGHTS = """
    L1 L1L2 L2 OrthogonalRegularizer Regularizer
    Constraint MaxNorm MinMaxNorm NonNeg RadialConstraint UnitNorm
    AWQConfig AbsMaxQuantizer Float8QuantizationConfig GPTQConfig Int4QuantizationConfig
    Int8QuantizationConfig QuantizationConfig Quantizer
    AWQDTypePolicy DTypePolicy DTypePolicyMap FloatDTypePolicy GPTQDTypePolicy Int4DTypePolicy
    Policy QuantizedDTypePolicy QuantizedFloat8DTypePolicy
    SeedGenerator
"""

_LOSSES = """
    BinaryCrossentropy BinaryFocalCrossentropy CTC CategoricalCrossentropy
    CategoricalFocalCrossentropy CategoricalGeneralizedCrossEntropy CategoricalHinge Circle
    CosineSimilarity Dice Hinge Huber KLDivergence LogCosh Loss LossFunctionWrapper
    MeanAbsoluteError MeanAbsolutePercentageError MeanSquaredError MeanSquaredLogarithmicError
    Poisson Reduction SparseCategoricalCrossentropy SquaredHinge Tversky
"""

_METRICS = """
    AUC Accuracy BinaryAccuracy BinaryIoU CategoricalAccuracy ConcordanceCorrelation F1Score
    FBetaScore FalseNegatives FalsePositives IoU LogCoshError Mean MeanIoU MeanMetricWrapper
    MeanRelativeError MeanTensor Metric OneHotIoU OneHotMeanIoU PearsonCorrelation Precision
    PrecisionAtRecall R2Score Recall RecallAtPrecision RootMeanSquaredError SensitivityAtSpecificity
    SparseCategoricalAccuracy SparseTopKCategoricalAccuracy SpecificityAtSensitivity Sum
    SumOverBatchSize SumOverBatchSizeMetricWrapper TopKCategoricalAccuracy TrueNegatives
    TruePositives
"""

# Containers of Keras 2's `compile`, and Keras 3's own.
_COMPILING = "CompileLoss CompileMetrics LossesContainer MetricsContainer MetricsList"


def _snake(name: str) -> str:
    """`GlorotUniform` as Keras also lists it: `glorot_uniform`."""
    return "".join(
        "_" + letter.lower() if letter.isupper() and place else letter.lower()
        for place, letter in enumerate(name)
    )


_SNAKED = frozenset(map(_snake, f"{_INITIALIZERS} {_WEIGHTS}".split()))

CLASSES = (
    LAYERS
    | OPTIMIZERS
    | frozenset(
        f"{_SCHEDULES} {_INITIALIZERS} {_WEIGHTS} {_LOSSES} {_METRICS} {_COMPILING}".split()
    )
    | frozenset(f"{name}V2" for name in _INITIALIZERS.split())
    | _SNAKED
    | frozenset("normal one stft uniform zero l1_l2 maxnorm nonneg unitnorm".split())
)
"""Classes that only build and compute, by their bare names."""

FUNCTIONS = frozenset(
    """
    celu elu exponential gelu glu hard_shrink hard_sigmoid hard_silu hard_swish hard_tanh leaky_relu
    linear log_sigmoid log_softmax mish relu relu6 selu sigmoid silu soft_shrink softmax softplus
    softsign sparse_plus sparse_sigmoid sparsemax squareplus swish tanh tanh_shrink threshold

    BCE KLD MAE MAPE MSE MSLE acc accuracy auc bce binary_accuracy binary_crossentropy
    binary_focal_crossentropy categorical_accuracy categorical_crossentropy
    categorical_focal_crossentropy categorical_generalized_cross_entropy categorical_hinge circle
    concordance_correlation cosine_proximity cosine_similarity ctc dice hinge huber huber_loss
    kl_divergence kld kullback_leibler_divergence log_cosh logcosh mae mape mean_absolute_error
    mean_absolute_percentage_error mean_squared_error mean_squared_logarithmic_error mse msle
    pearson_correlation poisson sparse_categorical_accuracy sparse_categorical_crossentropy
    sparse_top_k_categorical_accuracy squared_hinge top_k_categorical_accuracy tversky

    l1 l2 l1_l2
    """.split()
) | frozenset(map(_snake, _INITIALIZERS.split()))
"""Functions of keras.activations, losses, metrics, regularizers and initializers, which only compute."""

OPERATIONS = frozenset(
    """
    abs absolute arccos arccosh arcsin arcsinh arctan arctanh cbrt ceil celu conj cos cosh
    deg2rad elu erf erfinv exp exp2 expm1 floor gelu glu hard_shrink hard_sigmoid hard_silu
    hard_swish hard_tanh identity leaky_relu log log10 log1p log2 log_sigmoid log_softmax
    nan_to_num negative normalize rad2deg reciprocal relu relu6 round rsqrt selu sigmoid sign
    silu sin sinc sinh soft_shrink softmax softplus softsign sparse_plus sparse_sigmoid sparsemax
    sqrt square squareplus swish tan tanh tanh_shrink trunc
    """.split()
)
"""Functions of keras.ops that take one tensor: a layer may name one as its activation."""

OPERATION_MODULES = frozenset(
    f"keras.src.ops.{name}" for name in "core einops image linalg math nn numpy operation".split()
)
"""Modules of Keras 3 whose classes are the operations of a graph. Keras takes nothing else from them."""

HELPERS = frozenset(
    """
    clone_metric clone_metrics convert_to_legacy_optimizer deserialize deserialize_keras_object get
    is_categorical_crossentropy keras_export populate_deserializable_objects serialize
    serialize_keras_object
    """.split()
)
"""Functions that Keras 2 finds where it looks for a loss, an activation and the like, but that are none."""

FUNCTION_ENTRIES = frozenset(
    "activation fn loss metrics optimizer recurrent_activation weighted_metrics".split()
)
"""Entries of a config that name a function by a mere text."""

PROGRAMS = {
    "TFSMLayer": "filepath",
    "TorchModuleWrapper": "",
    "FlaxLayer": "",
    "JaxLayer": "",
}
"""Layers that load a program of another kind; for each the entry of its config that names it."""

FILE_ENTRIES = ("vocabulary", "idf_weights")
READERS = frozenset("StringLookup IntegerLookup TextVectorization IndexLookup".split())
"""Layers that open a file for these entries of their config, where they are a text."""

RAGGED = frozenset(
    """
    values flat_values row_splits nested_row_splits value_rowids nested_value_rowids nrows
    row_starts row_limits row_lengths nested_row_lengths bounding_shape with_values with_flat_values
    with_row_splits_dtype merge_dims to_tensor to_sparse indices dense_shape

    from_value_rowids from_row_splits from_row_lengths from_row_starts from_row_limits
    from_uniform_row_length from_nested_value_rowids from_nested_row_splits from_nested_row_lengths
    from_tensor from_sparse
    """.split()
)
"""Methods and properties of ragged and sparse tensors that Keras 2 makes layers of."""

SPECS = frozenset("TensorSpec RaggedTensorSpec SparseTensorSpec".split())
"""Types of tensors that a config may describe."""

INITIALIZERS = frozenset(_INITIALIZERS.split())
INITIALIZER_MODULES = ("tensorflow.python.ops.init_ops_v2", "tensorflow.python.ops.init_ops")
"""Where TensorFlow has initializers of its own, which Keras 2's applications use (EfficientNetV2)."""

SPEC_MODULES = frozenset(
    f"tensorflow.python.{name}"
    for name in "framework.tensor framework.tensor_spec framework.sparse_tensor "
    "ops.ragged.ragged_tensor".split()
)
"""Where TensorFlow has these."""
