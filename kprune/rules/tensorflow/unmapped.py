"""TensorFlow functions that have no rule by decision: they hold what reaches them, each for a reason."""

from __future__ import annotations

from fnmatch import fnmatchcase

REASONS = {
    "which works on text, files or records": "strings.* io.* audio.* string_* substr decode_raw "
    "fingerprint *serialize* edit_distance compat.* print Print",
    "which works on ragged tensors, sparse tensors or sets": "ragged.* ragged_* sparse.* sparse_* "
    "sets.* __operators__.ragged_getitem nn.safe_embedding_lookup_sparse "
    "nn.embedding_lookup_sparse setdiff1d",
    "which is compiled for accelerators": "xla_* *_tpu_* *tpu_array* d_tensor_* relayout* copy_to_mesh* "
    "configure_and_initialize* shutdown_* check_pinned conv conv2d_backprop* approx_top_k "
    "math.approx_*_k *reduce_precision",
    "which draws at random": "random.* random_* nn.experimental.* image.random_* image.stateless_* "
    "image.sample_distorted* *_candidate_sampler math.sobol_sample",
    "which runs a function, or is a check that gives no tensor": "case cond while_loop scan foldl foldr "
    "map_fn py_func py_function numpy_function tuple no_op debugging.* nn.dynamic_rnn nn.raw_rnn "
    "nn.bidirectional_dynamic_rnn nn.static_* timestamp ragged.map_flat_values",
    "which makes a tensor of numbers alone": "range linspace eye meshgrid sequence_mask signal.*_window "
    "signal.*window* broadcast_dynamic_shape broadcast_static_shape shape_n ones_initializer",
    "whose operands tf_keras does not write into the file": "einsum",
    "which reads or writes at positions that are known only at run time": "gather_nd "
    "batch_gather scatter_nd tensor_scatter_nd_* dynamic_partition dynamic_stitch *segment_* "
    "searchsorted unique unique_with_counts unravel_index reverse_sequence parallel_stack "
    "nn.embedding_lookup math.bincount math.confusion_matrix math.in_top_k histogram_fixed_width* "
    "math.invert_permutation image.extract_glimpse image.*non_max_suppression* "
    "image.crop_and_resize image.draw_bounding_boxes image.generate_bounding_box_proposals "
    "nn.max_pool_with_argmax nn.fractional_*_pool nn.collapse_repeated sparse_to_dense",
    "which takes a matrix as a whole": "linalg.* matrix_* cholesky_* ",
    "which is a transform along whole axes": "signal.* fftnd ifftnd rfftnd irfftnd *_extract_volume_patches "
    "extract_volume_patches",
    "which is a convolution whose kernel is written into the config or computed": "nn.conv* nn.atrous_* "
    "nn.depthwise_* nn.separable_* nn.dilation2d nn.erosion2d nn.with_space_to_batch "
    "nn.quantized_conv2d nn.xw_plus_b nn.relu_layer",
    "which makes a loss or a figure of whole tensors": "nn.*loss* nn.*entropy* nn.ctc_* losses.* "
    "nn.compute_* image.psnr image.ssim* math.zero_fraction math.is_non_decreasing "
    "math.is_strictly_increasing math.lbeta math.polyval nn.sufficient_statistics "
    "nn.normalize_moments nn.weighted_moments nn.isotonic_regression train.* clip_by_global_norm "
    "clip_by_average_norm",
    "which normalises with tensors of its own, or over neighbouring channels": "nn.*batch_norm* "
    "nn.local_response_normalization",
    "which turns colours into others": "image.*rgb* image.*hsv* image.*yiq* image.*yuv* image.adjust_hue "
    "image.adjust_saturation image.*jpeg*",
    "which changes the type or the precision of its numbers": "quantization.* quantize* bitcast "
    "nn.quantized_* image.decode* image.encode*",
    "which is called through Keras's backend or its losses": "keras.*",
}
"""For each reason the functions, without `tf.` and `compat.v1.`; `*` stands for anything."""


def reason(name: str) -> str:
    """Why a function deliberately has no rule; "" if no decision was made."""
    for why, names in REASONS.items():
        if any(fnmatchcase(name, pattern) for pattern in names.split()):
            return why
    return ""


def why_unmapped(name: str) -> str:
    """Why a function holds its units: goes on after "calls tf.strings.upper, "."""
    return reason(name) or "which kprune has no rule for"
