"""Operations that hold the units that reach them, each with the reason."""

from __future__ import annotations

from typing import Any

from kprune.labels.labels import Labels
from kprune.rules.operations.arguments import axes_of
from kprune.tracing.layer_call import LayerCall
from kprune.tracing.registry import OPERATIONS

REASONS = {
    "reorders positions by their values": (
        "Argpartition TopK Unique SearchSorted Nonzero TakeAlongAxis InTopK"
    ),
    "runs a function that is not in the file": (
        "Map Scan AssociativeScan VectorizedMap WhileLoop ForiLoop Cond Switch Select JVP "
        "Function Custom_gradient"
    ),
    "reads or writes at positions that are known only at run time": (
        "Scatter ScatterUpdate Slice SliceUpdate SegmentReduction SegmentSum SegmentMax "
        "SegmentMin SegmentProd Bincount Digitize Histogram UnravelIndex MapCoordinates "
        "CTCDecode"
    ),
    "takes a matrix as a whole": (
        "Cholesky CholeskyInverse Det Eig Eigh Inv LuFactor Qr Solve SolveTriangular SVD "
        "Lstsq MatrixRank Pinv Logdet Slogdet Corrcoef CDist Vander"
    ),
    "takes or makes a diagonal": "Diag Diagflat Diagonal Trace Tril Triu",
    "makes a loss or a score of whole tensors": (
        "BinaryCrossentropy CategoricalCrossentropy SparseCategoricalCrossentropy CTCLoss "
        "PSNR SSIM AllClose IsIn"
    ),
    "turns colours into others": "RGBToGrayscale RGBToHSV HSVToRGB",
    "is a transform along whole axes": (
        "FFT FFT2 IFFT2 RFFT IRFFT STFT ISTFT ExtractSequences ExtractPatches Unfold Fold "
        "ViewAsComplex ViewAsReal View"
    ),
    "makes a tensor of numbers alone": (
        "Arange Full Linspace Logspace Geomspace Meshgrid Ndim Size"
    ),
    "is a convolution with a kernel computed in the model": (
        "Conv DepthwiseConv SeparableConv ConvTranspose"
    ),
    "turns the picture by quarters": "Rot90",
}


def _register(reason: str, names: list[str]) -> None:
    @OPERATIONS.rule(*names, does="opaque", note=reason)
    def hold(call: LayerCall) -> Any:
        return call.opaque(f"{call.layer.path!r} ({call.kind}) {reason}")


for _reason, _names in REASONS.items():
    _register(_reason, _names.split())


@OPERATIONS.rule(
    "Sort",
    "Argsort",
    "Cumprod",
    "Nancumprod",
    "Diff",
    "Trapezoid",
    does="passes",
    note="along an axis, on which no unit may stand",
)
def along_an_axis(call: LayerCall) -> Labels:
    shape = call.shape()
    axes = axes_of(call.config.get("axis", call.kwargs.get("axis", -1)), len(shape))
    x = call.keep_axes_whole(
        call.x, axes, f"stand along an axis on which {call.layer.path!r} works"
    )
    recorded = call.recorded.get(0)
    if call.kind == "Diff":
        steps = int(call.config.get("n", 1))
        return x.with_shape(
            tuple(n if a not in axes or n is None else n - steps for a, n in enumerate(shape))
        )
    if call.kind == "Trapezoid":
        kept = tuple(n for a, n in enumerate(shape) if a not in axes)
        return x.move(lambda factor: factor.squeeze(tuple(axes)), kept).with_keeps_zero(
            x.keeps_zero
        )
    return x.with_shape(recorded) if recorded is not None else x
