"""LSTM, GRU and RNN step by step, for sequences of static length: what the host runs, for TVM has none of them.

Equations and the order of gates: ONNX operator specification. W is [directions, gates * hidden, inputs], R the same of
the hidden state, B both biases one behind the other, X [steps, batch, inputs].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tvm_ext.onnx_rewrite import Rewrite

_DEFAULTS = {"LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh"), "RNN": ("Tanh",)}


@dataclass(frozen=True)
class _Direction:
    """One direction of a layer: weights turned for products, biases, activations, and the first states."""

    r: Rewrite
    index: int
    hidden: int
    activations: Sequence[str]

    def of(self, operand: int) -> str:
        """This direction's part of an operand; empty where it is left out."""
        name = self.r.operand(operand)
        return self.r.emit("Gather", name, self.r.constant(f"direction{self.index}", self.index, np.int64),
                           axis=0) if name else ""  # fmt: skip

    def turned(self, operand: int) -> str:
        """A weight as the right factor of a product."""
        return self.r.emit("Transpose", self.of(operand), perm=[1, 0])

    def state(self, operand: int) -> str:
        """The first state, [batch, hidden]; zeros by default."""
        zeros = np.zeros((self.r.shape(self.r.operand(0))[1], self.hidden))
        return self.of(operand) or self.r.constant("zeros", zeros)

    def part(self, value: str, first: int, count: int = 1) -> str:
        """Gates number `first` and on of a value whose last axis holds them all."""
        r = self.r
        start, end = (r.constant(f"at{gate}", [gate * self.hidden], np.int64) for gate in (first, first + count))
        return r.emit("Slice", value, start, end, r.constant("last", [-1], np.int64))

    def biases(self, gates: int) -> tuple[str, str]:
        """The bias of the input's product and of the state's; empty without."""
        bias = self.of(3)
        return (self.part(bias, 0, gates), self.part(bias, gates, gates)) if bias else ("", "")

    def affine(self, value: str, weight: str, bias: str) -> str:
        """value times weight plus bias."""
        product = self.r.emit("MatMul", value, weight)
        return self.r.emit("Add", product, bias) if bias else product

    def activated(self, which: int, *summands: str) -> str:
        """An activation of a sum."""
        total = summands[0] if len(summands) == 1 else self.r.emit("Add", *summands)
        return self.r.emit(self.activations[which], total)

    def steps(self) -> list[int]:
        """The numbers of the steps in the order in which they are taken."""
        count = self.r.shape(self.r.operand(0))[0]
        backwards = self.index == 1 or self.r.attribute("direction", b"forward") == b"reverse"
        return list(reversed(range(count))) if backwards else list(range(count))

    def step(self, value: str, number: int) -> str:
        """One step of a sequence."""
        return self.r.emit("Gather", value, self.r.constant(f"step{number}", number, np.int64), axis=0)


def lstm(r: Rewrite) -> None:
    """Gates in the order input, output, forget, cell."""
    _layer(r, _lstm_direction)


def gru(r: Rewrite) -> None:
    """Gates in the order update, reset, hidden."""
    _layer(r, _gru_direction)


def rnn(r: Rewrite) -> None:
    """One gate."""
    _layer(r, _rnn_direction)


def _lstm_direction(d: _Direction) -> tuple[list[str], list[str]]:
    r, recurrent, hidden, cell = d.r, d.turned(2), d.state(5), d.state(6)
    bias, state_bias = d.biases(4)
    inputs, outputs = d.affine(r.operand(0), d.turned(1), bias), {}
    for number in d.steps():
        gates = r.emit("Add", d.step(inputs, number), d.affine(hidden, recurrent, state_bias))
        i, o, f = (d.activated(0, d.part(gates, gate)) for gate in range(3))
        update = r.emit("Mul", i, d.activated(1, d.part(gates, 3)))
        cell = r.emit("Add", r.emit("Mul", f, cell), update)
        hidden = outputs[number] = r.emit("Mul", o, d.activated(2, cell))
    return [outputs[number] for number in sorted(outputs)], [hidden, cell]


def _gru_direction(d: _Direction) -> tuple[list[str], list[str]]:
    r, recurrent, hidden = d.r, d.turned(2), d.state(5)
    bias, state_bias = d.biases(3)
    inputs, outputs = d.affine(r.operand(0), d.turned(1), bias), {}
    linear_first = bool(r.attribute("linear_before_reset", 0))
    last_weight = d.part(recurrent, 2)
    last_bias = d.part(state_bias, 2) if state_bias else ""
    for number in d.steps():
        x, gates = d.step(inputs, number), d.affine(hidden, recurrent, state_bias)
        update, reset = (d.activated(0, d.part(x, gate), d.part(gates, gate)) for gate in range(2))
        if linear_first:
            state = r.emit("Mul", reset, d.part(gates, 2))
        else:
            state = d.affine(r.emit("Mul", reset, hidden), last_weight, last_bias)
        fresh = d.activated(1, d.part(x, 2), state)
        # The mean of both states, weighted by the update gate.
        change = r.emit("Mul", update, r.emit("Sub", hidden, fresh))
        hidden = outputs[number] = r.emit("Add", fresh, change)
    return [outputs[number] for number in sorted(outputs)], [hidden]


def _rnn_direction(d: _Direction) -> tuple[list[str], list[str]]:
    r, recurrent, hidden = d.r, d.turned(2), d.state(5)
    bias, state_bias = d.biases(1)
    inputs, outputs = d.affine(r.operand(0), d.turned(1), bias), {}
    for number in d.steps():
        hidden = d.activated(0, d.step(inputs, number), d.affine(hidden, recurrent, state_bias))
        outputs[number] = hidden
    return [outputs[number] for number in sorted(outputs)], [hidden]


def _layer(r: Rewrite, run: Callable[[_Direction], tuple[list[str], list[str]]]) -> None:
    """Y [steps, directions, batch, hidden], then the last states [directions, batch, hidden]."""
    kind, count = r.node.op_type, r.shape(r.operand(1))[0]
    _check(r)
    activations = [name.decode() for name in r.attribute("activations", [])] or list(_DEFAULTS[kind]) * count
    each = len(_DEFAULTS[kind])
    results = [run(_Direction(r, i, r.shape(r.operand(2))[2], activations[i * each : (i + 1) * each]))
               for i in range(count)]  # fmt: skip
    steps = [_stacked(r, [outputs[number] for outputs, _ in results]) for number in range(len(results[0][0]))]
    states = [list(state) for state in zip(*(last for _, last in results), strict=True)]
    if r.node.output[0]:
        _stacked(r, steps, 0)
    for index, state in enumerate(states, 1):
        if index < len(r.node.output) and r.node.output[index]:
            _stacked(r, state, index)


def _stacked(r: Rewrite, values: Sequence[str], output: int | None = None) -> str:
    """Values one behind the other along a new first axis."""
    axis = r.constant("first", [0], np.int64)
    return r.emit("Concat", *(r.emit("Unsqueeze", value, axis) for value in values), output=output, axis=0)


def _check(r: Rewrite) -> None:
    """Raises NotImplementedError, as TVM's own converters do, for what has no step by step form here."""
    kept = {"lengths": r.operand(4), "peepholes": r.operand(7), "clip": r.attribute("clip", None),
            "input_forget": r.attribute("input_forget", 0), "layout": r.attribute("layout", 0)}  # fmt: skip
    unknown = [name for name, value in kept.items() if value]
    activations = {name.decode() for name in r.attribute("activations", [])} - {"Sigmoid", "Tanh", "Relu"}
    if unknown or activations:
        raise NotImplementedError(f"{r.node.op_type} with {', '.join((*unknown, *activations))}")
