"""A PrimFunc as stages: one for each of its blocks that cannot be inlined, with the regions that a region takes.

A stage computes every element of its output by an expression of elements of its inputs, summed up over some variables.
What it reads for a box of its output follows from the indices: exactly where these are affine, by TIR's integer sets
elsewhere, and the whole axis where data decides it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import Any

import numpy as np

from npu_backend.box import Box
from npu_backend.kernels import Kernel, KernelOperations
from tvm_ext import tir_api as api
from tvm_ext.tir_native import RUNNABLE, native_symbol, run_whole

Interval = tuple[int, int]


@dataclass(frozen=True)
class Affine:
    """``constant + sum(coefficient * variable)``, variables by their number."""

    constant: int
    coefficients: tuple[tuple[int, int], ...]

    def interval(self, ends: Sequence[Interval]) -> Interval:
        """First and one past the last value, given those of the variables."""
        low = high = self.constant
        for number, coefficient in self.coefficients:
            start, stop = ends[number]
            first, last = coefficient * start, coefficient * (stop - 1)
            low, high = low + min(first, last), high + max(first, last)
        return low, high + 1


@dataclass(frozen=True, eq=False)
class Other:
    """Any other index: its variables with their numbers, and what was found for their ends, None of no bounds."""

    index: Any
    variables: tuple[tuple[int, Any], ...]
    _found: dict[tuple[Interval, ...], Interval | None] = field(default_factory=dict)

    def interval(self, ends: Sequence[Interval]) -> Interval | None:
        """By TIR's integer sets; planning asks for the same few ends of an axis again and again."""
        own = tuple(ends[number] for number, _ in self.variables)
        if own not in self._found:
            self._found[own] = self._bounds(own)
        return self._found[own]

    def _bounds(self, ends: Sequence[Interval]) -> Interval | None:
        sets = {variable: api.arith.IntervalSet(start, stop - 1)
                for (_, variable), (start, stop) in zip(self.variables, ends, strict=True)}  # fmt: skip
        found = api.arith.Analyzer().int_set(self.index, sets)
        try:
            return api.constant(found.min_value), api.constant(found.max_value) + 1
        except (AttributeError, ValueError):
            return None


@dataclass(frozen=True)
class Load:
    """Where an input is read: its number, and per axis what is known of the index."""

    operand: int
    axes: tuple[Affine | Other, ...]


@dataclass(frozen=True, eq=False)
class Stage:
    """One block: a `TileFunction`. `spatial` are its variables in the order of the output's axes, `reduced` the others.

    `init` is what a sum begins with, None where nothing is summed.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    inputs: tuple[Any, ...]
    output: Any
    spatial: tuple[Any, ...]
    reduced: tuple[tuple[Any, int, int], ...]
    value: Any
    init: Any
    _boxes: dict[Box, tuple[Box, ...]] = field(default_factory=dict)
    _others: list[Other] = field(default_factory=list)

    @property
    def split_axes(self) -> tuple[int, ...]:
        """Every axis with more than one position."""
        return tuple(axis for axis, extent in enumerate(self.shape) if extent > 1)

    def input_boxes(self, out_box: Box) -> tuple[Box, ...]:
        """For every input, the hull of what the loads read, clipped; empty where the box needs nothing of it."""
        if out_box not in self._boxes:
            self._boxes[out_box] = self._regions(out_box)
        return self._boxes[out_box]

    def _regions(self, out_box: Box) -> tuple[Box, ...]:
        ends = [*zip(out_box.starts, out_box.stops), *((low, low + extent) for _, low, extent in self.reduced)]
        hulls: dict[int, Box] = {}
        for load in self.loads:
            shape = api.shape_of(self.inputs[load.operand])
            box = self._region(load, shape, ends)
            if not box.is_empty or not shape:
                hulls[load.operand] = hulls[load.operand].hull(box) if load.operand in hulls else box
        empty = (Box((0,) * len(each.shape), (0,) * len(each.shape)) for each in self.inputs)
        return tuple(hulls.get(number, nothing) for number, nothing in enumerate(empty))

    def _region(self, load: Load, shape: Sequence[int], ends: Sequence[Interval]) -> Box:
        intervals = []
        for index, extent in zip(load.axes, shape, strict=True):
            low, high = index.interval(ends) or (0, extent)
            intervals.append((max(low, 0), max(min(high, extent), low, 0)))
        return Box(tuple(low for low, _ in intervals), tuple(high for _, high in intervals))

    @property
    def variables(self) -> tuple[Any, ...]:
        """Those of the output's axes, then those summed over."""
        return (*self.spatial, *(variable for variable, _, _ in self.reduced))

    @cached_property
    def loads(self) -> tuple[Load, ...]:
        """Every place where an input is read."""
        return tuple(self._load(each) for each in _loads_in(self.value) if not api.buffer_of(each).same_as(self.output))

    def _load(self, load: Any) -> Load:
        operand = next(i for i, each in enumerate(self.inputs) if each.same_as(api.buffer_of(load)))
        return Load(operand, tuple(self._index(index) for index in load.indices))

    def _shared(self, other: Other) -> Other:
        """One for all loads of this index, which often differ in that of another axis alone."""
        known = next((each for each in self._others if api.equal(each.index, other.index)), None)
        if known is None:
            self._others.append(other)
        return known or other

    def _index(self, index: Any) -> Affine | Other:
        other = Other(index, tuple((number, variable) for number, variable in enumerate(self.variables)
                                   if any(variable.same_as(each) for each in _variables_in(index))))  # fmt: skip
        found = [] if any(True for _ in _loads_in(index)) else api.arith.detect_linear_equation(index, self.variables)
        try:
            numbers = [api.constant(each) for each in found]
        except ValueError:
            return self._shared(other)
        if not numbers:
            return self._shared(other)
        *coefficients, constant = numbers
        return Affine(constant, tuple((i, each) for i, each in enumerate(coefficients) if each != 0))

    @cached_property
    def _per_element(self) -> KernelOperations:
        counted = _operations(self.value)
        return counted + KernelOperations(0, 0, np.dtype(self.dtype).itemsize)

    def operations(self, out_box: Box) -> KernelOperations:
        """Those of one element, as often as it is computed."""
        times = out_box.size * prod(extent for _, _, extent in self.reduced)
        each = self._per_element
        return KernelOperations(each.simple_bytes * times, each.special_bytes * times, each.access_bytes * times)

    def reference(self, inputs: Sequence[np.ndarray]) -> np.ndarray:
        """The whole output, by TVM."""
        shapes = [each.shape for each in inputs]
        strides = tuple(_dense(shape, array.itemsize) for shape, array in zip(shapes, inputs))
        whole = Box.whole(self.shape)
        kernel = Kernel(self, whole, (*strides, _dense(self.shape, np.dtype(self.dtype).itemsize)))
        boxes = self.input_boxes(whole)
        arrays = [np.ascontiguousarray(array)[_slices(box)] for array, box in zip(inputs, boxes, strict=True)]
        return run_whole(self.specialized(kernel), arrays, self.shape, self.dtype)

    def symbol(self, kernel: Kernel) -> str:
        """The name of the kernel's native function."""
        return native_symbol(self.specialized(kernel))

    def specialized(self, kernel: Kernel) -> Any:
        """The kernel as a function of addresses: loops over the box, absolute positions put in."""
        return _Specialized(self, kernel).function()


class _Specialized:
    """A kernel under construction."""

    def __init__(self, stage: Stage, kernel: Kernel) -> None:
        self.stage, self.kernel = stage, kernel
        self.boxes = (*stage.input_boxes(kernel.out_box), kernel.out_box)
        buffers = (*stage.inputs, stage.output)
        self.types = [api.element_type(each) for each in buffers]
        self.strides = [tuple(step // np.dtype(dtype).itemsize for step in steps)
                        for steps, dtype in zip(kernel.strides, self.types, strict=True)]  # fmt: skip
        spans = [1 + sum((extent - 1) * step for extent, step in zip(box.shape, steps)) if not box.is_empty else 1
                 for box, steps in zip(self.boxes, self.strides)]  # fmt: skip
        made = [api.flat_buffer(f"operand{i}", dtype, span) for i, (dtype, span) in enumerate(zip(self.types, spans))]
        self.parameters = [parameter for parameter, _, _ in made]
        self.buffers = [buffer for _, buffer, _ in made]
        self.declarations = [statement for _, _, statements in made for statement in statements]
        self.analyzer = api.arith.Analyzer()

    def function(self) -> Any:
        """The finished function."""
        stage, out_box = self.stage, self.kernel.out_box
        spatial = [self._loop(variable) for variable in stage.spatial]
        reduced = [self._loop(variable) for variable, _, _ in stage.reduced]
        starts = (*out_box.starts, *(low for _, low, _ in stage.reduced))
        places = {variable: loop + start if start else loop
                  for variable, loop, start in zip(stage.variables, (*spatial, *reduced), starts)}  # fmt: skip
        target = self._flat(len(self.boxes) - 1, [places[variable] for variable in stage.spatial])
        body = api.tir.BufferStore(self.buffers[-1], self._put(stage.value, places), [target])
        if stage.init is not None:
            body = api.loops([(loop, extent) for loop, (_, _, extent) in zip(reduced, stage.reduced)], body)
            init = api.tir.BufferStore(self.buffers[-1], self._put(stage.init, places), [target])
            body = api.tir.SeqStmt([init, body])
        body = api.loops(list(zip(spatial, out_box.shape)), body)
        return api.function_of(self.parameters, [*self.declarations, body])

    def _loop(self, variable: Any) -> Any:
        return api.tir.Var(f"i_{variable.name}", api.dtype_of(variable))

    def _flat(self, operand: int, indices: Sequence[Any]) -> Any:
        """The place of an element in an operand's memory."""
        box, strides = self.boxes[operand], self.strides[operand]
        terms = [(index - start) * step for index, start, step in zip(indices, box.starts, strides)]
        total = sum(terms[1:], terms[0]) if terms else api.tir.IntImm("int32", 0)
        return self.analyzer.simplify(total)

    def _put(self, expression: Any, places: Mapping[Any, Any]) -> Any:
        """The expression at the loops' places, reading operands."""
        kind = api.kind_of(expression)
        if kind == "Var":
            return next((place for variable, place in places.items() if variable.same_as(expression)), expression)
        parts = [self._put(part, places) for part in api.children(expression)]
        if kind != "BufferLoad":
            return api.rebuilt(expression, parts)
        buffers, source = (*self.stage.inputs, self.stage.output), api.buffer_of(expression)
        operand = next(i for i, each in enumerate(buffers) if each.same_as(source))
        return api.tir.BufferLoad(self.buffers[operand], [self._flat(operand, parts)])


def stages_of(function: Any, name: str) -> tuple[Stage, ...]:
    """The stages of a PrimFunc in order, the output of one the input of later ones.

    Raises ValueError, saying what, for what a kernel cannot be: calls of TVM's runtime, blocks that are no expression
    of one element, extents that are not known.
    """
    blocks = api.blocks_of(function)
    return tuple(_stage(block, f"{name}.{block.name_hint}" if len(blocks) > 1 else name) for block in blocks)


def _stage(block: Any, name: str) -> Stage:
    body = block.body
    if type(body).__name__ != "BufferStore" or len(block.writes) != 1:
        raise ValueError(f"{block.name_hint} is no expression of one element")
    rank = len(body.buffer.shape)
    # A block of a number has a variable all the same, which is read nowhere.
    spatial = tuple(each.var for each in block.iter_vars if not api.is_reduction(each)) if rank else ()
    reduced = tuple((each.var, api.constant(each.dom.min), api.constant(each.dom.extent))
                    for each in block.iter_vars if api.is_reduction(each))  # fmt: skip
    shape = api.shape_of(body.buffer)
    axes = [index.same_as(variable) for index, variable in zip(body.indices, spatial)]
    if len(spatial) != len(shape) or not all(axes):
        raise ValueError(f"{block.name_hint} writes its output in another order")
    dtype = api.element_type(body.buffer)
    init = None if block.init is None else block.init.value
    if (init is not None) != bool(reduced):
        raise ValueError(f"{block.name_hint} sums up without a beginning")
    inputs = _buffers_in(body.value, body.buffer)
    for buffer in (*inputs, body.buffer):
        if api.element_type(buffer) not in RUNNABLE:
            raise ValueError(f"{block.name_hint} has elements of {api.element_type(buffer)}")
        api.shape_of(buffer)
    _check(body.value)
    return Stage(name, shape, dtype, inputs, body.buffer, spatial, reduced, body.value, init)


def _check(expression: Any) -> None:
    """Raises ValueError for calls of TVM's runtime and expressions that are not known."""
    if api.kind_of(expression) == "Call" and "packed" in api.operator_of(expression):
        raise ValueError("it calls TVM's runtime")
    for part in api.children(expression):
        _check(part)


def _buffers_in(expression: Any, output: Any) -> tuple[Any, ...]:
    found: list[Any] = []
    for load in _loads_in(expression):
        buffer = api.buffer_of(load)
        if not buffer.same_as(output) and not any(buffer.same_as(each) for each in found):
            found.append(buffer)
    return tuple(found)


def _loads_in(expression: Any) -> Iterator[Any]:
    """Every load, those in the indices of others too."""
    if api.kind_of(expression) == "BufferLoad":
        yield expression
    for part in api.children(expression):
        yield from _loads_in(part)


def _variables_in(expression: Any) -> Iterator[Any]:
    if api.kind_of(expression) == "Var":
        yield expression
    for part in api.children(expression):
        yield from _variables_in(part)


def _operations(expression: Any) -> KernelOperations:
    """Those of one evaluation; affine indices are the loops' own."""
    kind = api.kind_of(expression)
    if kind in ("Var", "IntImm", "FloatImm", "StringImm"):
        return KernelOperations(0, 0, 0)
    if kind == "BufferLoad":
        own = KernelOperations(0, 0, _item_bytes(api.element_type(api.buffer_of(expression))))
        return sum((_operations(i) for i in expression.indices if any(True for _ in _loads_in(i))), own)
    size = _item_bytes(api.dtype_of(expression))
    is_float = api.dtype_of(expression).startswith("float")
    special = (kind == "Call" and api.is_special(expression)) or (kind in ("Div", "Mod") and is_float)
    own = KernelOperations(0, size, 0) if special else KernelOperations(size, 0, 0)
    return sum((_operations(part) for part in api.children(expression)), own)


def _item_bytes(dtype: str) -> int:
    try:
        return int(np.dtype(dtype).itemsize)
    except TypeError:
        # A text that names something, or a handle.
        return 0


def _dense(shape: Sequence[int], itemsize: int) -> tuple[int, ...]:
    return tuple(itemsize * prod(shape[axis + 1 :]) for axis in range(len(shape)))


def _slices(box: Box) -> tuple[slice, ...]:
    return tuple(slice(start, None) for start in box.starts)
