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
from tvm_ext.tir_expressions import loads_in, operations_of, variables_in
from tvm_ext.tir_native import RUNNABLE, native_symbol, run_whole

Interval = tuple[int, int]
# Beside the own value of a stage: places that kernels.c has.
MAX_CARRIED = 2


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
class Carried:
    """A value that is summed up beside a stage's own, which reads it, and not kept: an extreme beside its index."""

    buffer: Any
    value: Any
    init: Any


@dataclass(frozen=True, eq=False)
class Stage:
    """One output of a block: a `TileFunction`. `spatial` are its variables in the order of the output's axes, `reduced`
    the others.

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
    carried: tuple[Carried, ...] = ()
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
        own = (self.output, *(each.buffer for each in self.carried))
        return tuple(self._load(each) for value in self.values for each in loads_in(value)
                     if not _is_among(api.buffer_of(each), own))  # fmt: skip

    @property
    def values(self) -> tuple[Any, ...]:
        """What is computed of every element: its own value, then those carried along."""
        return (self.value, *(each.value for each in self.carried))

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
                                   if any(variable.same_as(each) for each in variables_in(index))))  # fmt: skip
        found = [] if any(True for _ in loads_in(index)) else api.arith.detect_linear_equation(index, self.variables)
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
        counted = sum(map(operations_of, self.values), KernelOperations(0, 0, 0))
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
        carried = [api.flat_buffer(f"carried{i}", api.element_type(each.buffer), 1)
                   for i, each in enumerate(stage.carried)]  # fmt: skip
        self.buffers, self.places = [buffer for _, buffer, _ in made], [buffer for _, buffer, _ in carried]
        made += carried
        self.parameters = [parameter for parameter, _, _ in made]
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
        body = self._stores(stage.values, places, target)
        if stage.init is not None:
            body = api.loops([(loop, extent) for loop, (_, _, extent) in zip(reduced, stage.reduced)], body)
            init = self._stores((stage.init, *(each.init for each in stage.carried)), places, target)
            body = api.tir.SeqStmt([init, body])
        body = api.loops(list(zip(spatial, out_box.shape)), body)
        return api.function_of(self.parameters, [*self.declarations, body], len(self.places))

    def _stores(self, values: Sequence[Any], places: Mapping[Any, Any], target: Any) -> Any:
        """The stage's own value and those carried along, each stored after all that read it."""
        targets = [(self.buffers[-1], target), *((buffer, api.tir.IntImm("int32", 0)) for buffer in self.places)]
        stores = [api.tir.BufferStore(buffer, self._put(value, places), [index])
                  for value, (buffer, index) in zip(values, targets, strict=True)]  # fmt: skip
        return stores[0] if len(stores) == 1 else api.tir.SeqStmt(stores)

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
        for carried, place in zip(self.stage.carried, self.places):
            if carried.buffer.same_as(source):
                return api.tir.BufferLoad(place, [api.tir.IntImm("int32", 0)])
        operand = next(i for i, each in enumerate(buffers) if each.same_as(source))
        return api.tir.BufferLoad(self.buffers[operand], [self._flat(operand, parts)])


def stages_of(function: Any, name: str) -> tuple[Stage, ...]:
    """The stages of a PrimFunc in order, the output of one the input of later ones.

    Raises ValueError, saying what, for what a kernel cannot be: calls of TVM's runtime, blocks that are no expression
    of one element, extents that are not known.
    """
    blocks = api.blocks_of(function)
    return tuple(stage for block in blocks for stage in _stages(block, name, is_alone=len(blocks) == 1))


def _stages(block: Any, name: str, *, is_alone: bool) -> Iterator[Stage]:
    """One for every buffer that the block writes."""
    try:
        stores, begins = api.stores_of(block.body), [] if block.init is None else api.stores_of(block.init)
    except ValueError as error:
        raise ValueError(f"{block.name_hint} is no expression of one element: {error}") from error
    inits = [next((each.value for each in begins if each.buffer.same_as(store.buffer)), None) for store in stores]
    for number, (store, init) in enumerate(zip(stores, inits)):
        others = [Carried(each.buffer, each.value, begin)
                  for i, (each, begin) in enumerate(zip(stores, inits)) if i != number]  # fmt: skip
        label = block.name_hint if len(stores) == 1 else f"{block.name_hint}.{number}"
        yield _stage(block, store, init, _carried(block, store, others), name if is_alone else f"{name}.{label}")


def _carried(block: Any, store: Any, others: Sequence[Carried]) -> tuple[Carried, ...]:
    """Those of the others that a store reads, or that these read, each after all that read it."""
    found: list[Carried] = []
    waiting = [store.value]
    while waiting:
        read = [api.buffer_of(load) for load in loads_in(waiting.pop(0))]
        new = [each for each in others if _is_among(each.buffer, read) and each not in found]
        found.extend(new)
        waiting.extend(each.value for each in new)
    stored = [store.buffer, *(each.buffer for each in found)]
    for number, each in enumerate(found, 1):
        if any(_is_among(api.buffer_of(load), stored[:number]) for load in loads_in(each.value)):
            raise ValueError(f"{block.name_hint} computes values that take each other")
    if len(found) > MAX_CARRIED:
        raise ValueError(f"{block.name_hint} computes {len(found) + 1} values at once, of {MAX_CARRIED + 1}")
    return tuple(found)


def _stage(block: Any, body: Any, init: Any, carried: tuple[Carried, ...], name: str) -> Stage:
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
    if any((each is not None) != bool(reduced) for each in (init, *(each.init for each in carried))):
        raise ValueError(f"{block.name_hint} sums up without a beginning")
    values = (body.value, *(each.value for each in carried))
    inputs = _buffers_in(values, (body.buffer, *(each.buffer for each in carried)))
    for buffer in (*inputs, body.buffer):
        if api.element_type(buffer) not in RUNNABLE:
            raise ValueError(f"{block.name_hint} has elements of {api.element_type(buffer)}")
        api.shape_of(buffer)
    for value in values:
        _check(value)
    return Stage(name, shape, dtype, inputs, body.buffer, spatial, reduced, body.value, init, carried)


def _check(expression: Any) -> None:
    """Raises ValueError for calls of TVM's runtime and expressions that are not known."""
    if api.kind_of(expression) == "Call" and "packed" in api.operator_of(expression):
        raise ValueError("it calls TVM's runtime")
    for part in api.children(expression):
        _check(part)


def _is_among(buffer: Any, buffers: Sequence[Any]) -> bool:
    return any(buffer.same_as(each) for each in buffers)


def _buffers_in(expressions: Sequence[Any], own: Sequence[Any]) -> tuple[Any, ...]:
    found: list[Any] = []
    for buffer in (api.buffer_of(load) for expression in expressions for load in loads_in(expression)):
        if not _is_among(buffer, own) and not _is_among(buffer, found):
            found.append(buffer)
    return tuple(found)


def _dense(shape: Sequence[int], itemsize: int) -> tuple[int, ...]:
    return tuple(itemsize * prod(shape[axis + 1 :]) for axis in range(len(shape)))


def _slices(box: Box) -> tuple[slice, ...]:
    return tuple(slice(start, None) for start in box.starts)
