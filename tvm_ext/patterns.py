"""The operators the NPU takes from a quantised model, as TVM's dataflow patterns: one entry each.

An entry names the pattern, the parts its converter reads, the rules it must keep and the converter. The forms are
those of ONNX's QDQ: DequantizeLinear, float operator, QuantizeLinear; data movement also on the codes themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

from tvm.relax.dpl import DFPattern, is_const, is_op, is_tuple, wildcard

from tvm_ext import convert, rules
from tvm_ext import convert_elementwise as elementwise
from tvm_ext.functions import RELAX_CALLS, FunctionOfOne, is_known
from tvm_ext.matching import Match, Rule

_QUANTIZED = (rules.eight_bit, rules.inputs_have_codes, rules.output_has_codes)
_TABLE = (*_QUANTIZED, rules.one_data_type)
_MATRIX = (*_QUANTIZED, rules.weight_is_symmetric, rules.weight_scale_per_output, rules.bias_is_constant,
           rules.known_bounds)  # fmt: skip
_POOL = (*_TABLE, rules.two_dimensional, rules.no_dilated_window, rules.last_window_ignores_padding)


@dataclass(frozen=True)
class Entry:
    """A composite: `operator` is the Relax name of the main call.

    `parts` are sub-patterns by name, ``main`` among them; `reads` the dequantised or raw inputs; `on_codes` says that
    the main call itself reads codes or float32, without a dequantise in the pattern; `takes_constants` that some of
    the inputs may be constants; `applies` whether a match is one at all, which takes more than the pattern.
    """

    operator: str
    pattern: DFPattern | FunctionOfOne
    parts: Mapping[str, DFPattern]
    reads: Sequence[DFPattern]
    rules: Sequence[Rule]
    converter: convert.Converter
    on_codes: bool = field(default=False)
    takes_constants: bool = field(default=False)
    applies: Callable[[Match], bool] = field(default=lambda _: True)


def _dequantize(source: DFPattern) -> DFPattern:
    return is_op("relax.dequantize")(source, is_const(), is_const())


def _quantize(source: DFPattern) -> DFPattern:
    return is_op("relax.quantize")(source, is_const(), is_const())


def _call(op: str, *arguments: DFPattern) -> DFPattern:
    return is_op(f"relax.{op}")(*arguments, varg_default_wildcard=True)


def _activated(op: str, computed: DFPattern, parts: Mapping[str, DFPattern], reads: Sequence[DFPattern],
               kept: Sequence[Rule], converter: convert.Converter) -> Entry:  # fmt: skip
    """`computed`, maybe followed by Relu or Clip, quantised."""
    relu, clip = _call("nn.relu", computed), _call("clip", computed)
    pattern = _quantize(computed | relu | clip)
    return Entry(f"relax.{op}", pattern, {**parts, "relu": relu, "clip": clip}, reads, kept, converter)


def _convolution(op: str, converter: convert.Converter) -> Entry:
    x = _dequantize(wildcard())
    main = _call(op, x, _dequantize(is_const()))
    bias = _call("add", main, _call("reshape", _dequantize(is_const())) | _call("reshape", is_const()) | is_const())
    kept = (rules.one_dimensional if op == "nn.conv1d" else rules.two_dimensional, *_MATRIX)
    return _activated(op, main | bias, {"main": main, "bias": bias}, [x], kept, converter)


def _dense() -> Entry:
    x, weight = _dequantize(wildcard()), _dequantize(is_const())
    main = _call("matmul", x, weight | _call("permute_dims", weight))
    bias = _call("add", main, _dequantize(is_const()) | is_const())
    kept = (rules.weight_is_matrix, *_MATRIX)
    return _activated("matmul", main | bias, {"main": main, "bias": bias}, [x], kept, convert.dense)


def _binary(op: str) -> Entry:
    left, right = (_dequantize(wildcard()) | is_const() for _ in range(2))
    main = _call(op, left, right)
    entry = _activated(op, main, {"main": main}, [left, right], (*_TABLE, rules.known_bounds), elementwise.binary)
    return replace(entry, takes_constants=True)


def _prelu() -> Entry:
    x, slope = _dequantize(wildcard()), wildcard()
    main = _call("nn.prelu", x, slope)
    kept = (*_TABLE, rules.slope_is_constant)
    return Entry("relax.nn.prelu", _quantize(main), {"main": main}, [x, slope], kept, elementwise.prelu,
                 takes_constants=True)  # fmt: skip


def _one_input(op: str, kept: Sequence[Rule], converter: convert.Converter) -> Entry:
    x = _dequantize(wildcard())
    main = _call(op, x)
    return Entry(f"relax.{op}", _quantize(main), {"main": main}, [x], kept, converter)


def _function_of_one() -> Entry:
    chain = FunctionOfOne()
    return Entry("relax.quantize", chain, {"main": chain.main}, [chain.x], _TABLE, elementwise.function_of_one,
                 applies=is_known)  # fmt: skip


def _identity() -> Entry:
    x = _dequantize(wildcard())
    return Entry("relax.dequantize", _quantize(x), {"main": x}, [x], _TABLE, elementwise.identity)


def _moved(op: str, kept: Sequence[Rule], converter: convert.Converter) -> list[Entry]:
    """Data movement between dequantise and quantise, and on codes."""
    x = wildcard()
    main = _call(op, x)
    entry = _one_input(op, (*_TABLE, *kept), converter)
    return [entry, Entry(f"relax.{op}", main, {"main": main}, [x], (*_TABLE, *kept), converter, on_codes=True)]


@cache
def concatenation(count: int) -> tuple[Entry, ...]:
    """Concatenation of `count` inputs; TVM's tuple patterns have a fixed length."""
    reads = [_dequantize(wildcard()) for _ in range(count)]
    codes = [wildcard() for _ in range(count)]
    quantized, raw = _call("concat", is_tuple(reads)), _call("concat", is_tuple(codes))
    return (
        Entry("relax.concat", _quantize(quantized), {"main": quantized}, reads, _TABLE, convert.concat),
        Entry("relax.concat", raw, {"main": raw}, codes, _TABLE, convert.concat, on_codes=True),
    )


_RESIZE = (rules.two_dimensional, rules.known_resize, rules.nearest_on_codes, rules.resizes_only_images,
           rules.resize_scales_are_ratios)  # fmt: skip
_MOVES: Mapping[str, tuple[Sequence[Rule], convert.Converter]] = {
    "reshape": ((), convert.reshape),
    "squeeze": ((), convert.reshape),
    "expand_dims": ((), convert.reshape),
    "flatten": ((), convert.reshape),
    "permute_dims": ((), convert.transpose),
    "strided_slice": ((rules.steps_forward,), convert.strided_slice),
    "nn.pad": ((rules.pads_with_constant,), convert.pad),
    "nn.max_pool2d": ((rules.two_dimensional, rules.no_dilated_window), convert.pool),
    "image.resize2d": (_RESIZE, convert.resize),
}


@cache
def entries() -> tuple[Entry, ...]:
    """Every entry of fixed length, the first that matches wins."""
    return (
        _convolution("nn.conv2d", convert.conv2d),
        _convolution("nn.conv1d", convert.conv1d),
        _convolution("nn.conv2d_transpose", convert.conv_transpose2d),
        _dense(),
        _binary("add"),
        *(_binary(op) for op in ("multiply", "subtract", "divide", "maximum", "minimum")),
        _prelu(),
        _one_input("nn.avg_pool2d", _POOL, convert.pool),
        _one_input("nn.adaptive_avg_pool2d", (*_TABLE, rules.two_dimensional), convert.global_average_pool),
        *(_one_input(op, (*_TABLE, rules.rank_can_be_reduced), convert.reduce) for op in ("mean", "max", "min")),
        _one_input("nn.softmax", _TABLE, convert.softmax),
        _identity(),
        _function_of_one(),
        *(entry for op, (kept, converter) in _MOVES.items() for entry in _moved(op, kept, converter)),
    )


@cache
def coding_entries() -> tuple[Entry, ...]:
    """The ways into and out of codes, tried on what no operator has taken."""
    x = wildcard()
    quantized, dequantized = _quantize(x), _dequantize(x)
    return (
        Entry("relax.quantize", quantized, {"main": quantized}, [x],
              (rules.output_is_eight_bit, rules.output_has_codes), convert.quantize, on_codes=True),
        Entry("relax.dequantize", dequantized, {"main": dequantized}, [x],
              (rules.input_is_eight_bit, rules.inputs_have_codes), convert.dequantize, on_codes=True),
    )  # fmt: skip


@cache
def known_operators() -> frozenset[str]:
    """Relax operators that are in some entry, and split, whose quantised form the clean-up makes slices of."""
    return RELAX_CALLS | frozenset({"relax.split", *(entry.operator for entry in (*entries(), *concatenation(2)))})
