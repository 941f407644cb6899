"""Attributes of the operators, one frozen dataclass a family; axes are in storage order, images ``[n, h, w, c]``."""

from __future__ import annotations

from dataclasses import dataclass

from npu_backend.kernels import TileFunction


@dataclass(frozen=True)
class ConvAttributes:
    """A 2-D convolution. Inputs of codes: x, weight int8 ``[out, in / groups, kh, kw]``, weight_scale float32
    ``[1 or out]``, and optionally bias int32 ``[out]`` of scale ``x_scale * weight_scale``. Inputs of float16: x,
    weight float16, and optionally bias float32.

    `pads` are top, left, bottom, right. `clamp` bounds the output's codes (a fused Relu or Clip), inclusive. The output
    is codes, float16 or float32, or of codes the plain sums as int32.
    """

    strides: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilations: tuple[int, int] = (1, 1)
    groups: int = 1
    clamp: tuple[int, int] | None = None


@dataclass(frozen=True)
class ConvTransposeAttributes:
    """A transposed 2-D convolution; weight ``[in, out / groups, kh, kw]``, the rest as a convolution's."""

    strides: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilations: tuple[int, int] = (1, 1)
    output_padding: tuple[int, int] = (0, 0)
    groups: int = 1
    clamp: tuple[int, int] | None = None


@dataclass(frozen=True)
class DenseAttributes:
    """A product of ``x [..., k]`` with a constant weight ``[k, n]``; the rest as a convolution's."""

    clamp: tuple[int, int] | None = None


@dataclass(frozen=True)
class MatMulAttributes:
    """A product of ``a [..., m, k]`` and ``b [..., k, n]``, batch axes broadcast; a transposed side has its last two
    axes the other way round.

    The rest is legalize's: where each axis of a, b and the output, as told here, is stored; empty where it stands.
    """

    transpose_a: bool = False
    transpose_b: bool = False
    left_axes: tuple[int, ...] = ()
    right_axes: tuple[int, ...] = ()
    output_axes: tuple[int, ...] = ()


@dataclass(frozen=True)
class PoolAttributes:
    """A window reduction: `function` is ``maximum``, ``average_valid``, ``average_window`` (padding counted), ``l1`` or
    ``l2``.

    In ceil mode a last window may hang over the padding; what hangs over is never counted.
    """

    function: str
    kernel: tuple[int, int]
    strides: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilations: tuple[int, int] = (1, 1)
    ceil_mode: bool = False


@dataclass(frozen=True)
class ReduceAttributes:
    """A reduction over `axes`, which keep extent 1; they are summed in this order, the first the slowest.

    `function`: ``maximum``, ``minimum``, ``mean``, ``sum``, ``product``, ``l1``, ``l2``, ``sum_square``, ``log_sum`` or
    ``log_sum_exp``.
    """

    function: str
    axes: tuple[int, ...]


@dataclass(frozen=True)
class ArgReduceAttributes:
    """The index of the extreme along `axis`, which keeps extent 1: `function` is ``maximum`` or ``minimum``.

    Of equal elements the first is taken, or the last. The output is int64 or int32.
    """

    function: str
    axis: int
    select_last: bool = False


@dataclass(frozen=True)
class NormalizeAttributes:
    """``(x - mean) / sqrt(variance + epsilon)`` over `axes`, summed in this order, the first the slowest.

    Without `subtract_mean` (RMS normalisation): ``x / sqrt(mean square + epsilon)``.
    """

    axes: tuple[int, ...]
    epsilon: float
    subtract_mean: bool = True


@dataclass(frozen=True)
class LrnAttributes:
    """``x / (bias + alpha / size * s) ** beta``: s sums the squares of `size` neighbours along the last axis."""

    size: int
    alpha: float = 1e-4
    beta: float = 0.75
    bias: float = 1.0


@dataclass(frozen=True)
class UnaryAttributes:
    """An element-wise function of one tensor; between 8-bit codes a table of 256 entries.

    `function`: ``identity`` (a change of scale), or another key of ``numerics_unary.FUNCTIONS``; ``not``, ``is_nan``
    and ``is_inf`` make booleans. `parameters` are the function's own numbers in ONNX's order (clip: low, high), which
    ``numerics_unary.PARAMETER_NAMES`` names; those left out at the end have ONNX's defaults.
    """

    function: str
    parameters: tuple[float, ...] = ()


@dataclass(frozen=True)
class BinaryAttributes:
    """An element-wise function of two tensors of equal rank; extents of 1 broadcast.

    `function`: ``add``, ``multiply``, ``subtract``, ``divide``, ``maximum``, ``minimum``, ``prelu`` (right: the slope),
    ``power``, ``modulo`` (the divisor's sign: Mod with fmod=0), ``fmod`` (the dividend's: fmod=1); into booleans
    ``equal``, ``greater``, ``greater_or_equal``, ``less``, ``less_or_equal``, ``and``, ``or``, ``xor``.
    """

    function: str


@dataclass(frozen=True)
class ConcatAttributes:
    """Concatenation along one axis; inputs of another scale are requantised."""

    axis: int


@dataclass(frozen=True)
class ResizeAttributes:
    """A 2-D resize. `function`: ``nearest``, ``bilinear`` or ``cubic``; the rest are ONNX's own words.

    `scales` are those of height and width as ONNX computes coordinates with them. `roi` (first row, first column, last
    row, last column, as shares of the input) and `extrapolation` belong to ``tf_crop_and_resize``.
    """

    function: str
    output_size: tuple[int, int]
    scales: tuple[float, float]
    coordinate_mode: str = "half_pixel"
    nearest_mode: str = "round_prefer_floor"
    cubic_coefficient: float = -0.75
    exclude_outside: bool = False
    antialias: bool = False
    roi: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)
    extrapolation: float = 0.0


@dataclass(frozen=True)
class ReshapeAttributes:
    """The same elements in row-major order under another shape."""

    shape: tuple[int, ...]


@dataclass(frozen=True)
class TransposeAttributes:
    """Axis i of the output is axis ``axes[i]`` of the input."""

    axes: tuple[int, ...]


@dataclass(frozen=True)
class PadAttributes:
    """Elements added before and after every axis; negative numbers take some away.

    `mode`: ``constant`` (of the element `value`), ``reflect``, ``edge`` or ``wrap``, as NumPy's pad.
    """

    before: tuple[int, ...]
    after: tuple[int, ...]
    value: int | float = 0
    mode: str = "constant"


@dataclass(frozen=True)
class SliceAttributes:
    """Elements ``range(starts[i], stops[i], steps[i])`` of every axis: none negative, but a stop of -1 before 0."""

    starts: tuple[int, ...]
    stops: tuple[int, ...]
    steps: tuple[int, ...]


@dataclass(frozen=True)
class ExpandAttributes:
    """The input broadcast to `shape`, which may have more axes in front."""

    shape: tuple[int, ...]


@dataclass(frozen=True)
class KernelAttributes:
    """The function that a kernel computes."""

    function: TileFunction

    def __str__(self) -> str:
        return self.function.name


@dataclass(frozen=True)
class TileAttributes:
    """The whole input `repeats[i]` times along axis i."""

    repeats: tuple[int, ...]


@dataclass(frozen=True)
class BlockAttributes:
    """Blocks of ``block x block`` pixels to or from channels. `mode` of depth_to_space: ``DCR`` or ``CRD``."""

    block: int
    mode: str = "DCR"


@dataclass(frozen=True)
class GatherAttributes:
    """Positions along `axis` of the data that integer indices of any rank name; negative ones count from the end."""

    axis: int


@dataclass(frozen=True)
class SoftmaxAttributes:
    """Softmax along one axis, or its logarithm."""

    axis: int
    logarithm: bool = False
