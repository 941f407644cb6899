"""TVM's own ONNX importer for Relay, run on one node at a time.

As TVM runs it, the importer infers the type of everything before a node for each of its questions, folds constants by
compiling them, about a thousand times for a MobileNetV2, and makes the table of its converters anew for each node. Here
a node is converted over fresh variables of known type in the place of what it reads, so no question reaches further
than the node.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import onnx
import tvm
from onnx import numpy_helper
from tvm import relay
from tvm.relay.frontend.common import fold_constant, infer_type
from tvm.relay.frontend.onnx import GraphProto, _get_convert_map, onnx_input

from npu_backend.errors import UnsupportedError
from tvm_ext.onnx_constants import Constants
from tvm_ext.onnx_expansion import expansion
from tvm_ext.onnx_load import input_infos, tensor_info
from tvm_ext.onnx_opset import opset_of
from tvm_ext.relay_structured import constant, structured
from tvm_ext.values import DEQUANTIZE, OTHER, QUANTIZE, Call, Constant, Imported, Source, Value, Variable

# What TVM's converters raise for a form they do not know; they have no error class of their own for it.
REFUSALS = (ValueError, TypeError, LookupError, AttributeError, AssertionError, NotImplementedError, RuntimeError,
             tvm.TVMError)  # fmt: skip
_POOLS = ("AveragePool", "LpPool", "MaxPool")
# Static extents and the name of the data type.
Type = tuple[tuple[int, ...], str]
_CODING = {"QuantizeLinear": QUANTIZE, "DequantizeLinear": DEQUANTIZE}


@dataclass(frozen=True)
class NodeForm:
    """An ONNX node as TVM writes it: what each of its outputs is, over the variables of what it reads; and their types.

    `refusal`: why TVM writes it in no way; its results are then of the right type, but no more than that.
    """

    operands: Mapping[str, relay.Var]
    results: Mapping[str, relay.Expr]
    types: Mapping[str, Type]
    refusal: str | None = None


@dataclass
class RelayModel:
    """A model imported node by node.

    `forms`: by the ONNX node's name, in program order. `named`: values by ONNX name. `calls` and `sources`: as
    `Imported` has them.
    """

    forms: dict[str, NodeForm] = field(default_factory=dict)
    named: dict[str, Value] = field(default_factory=dict)
    calls: dict[Variable, Call] = field(default_factory=dict)
    sources: dict[Variable, Source] = field(default_factory=dict)
    inputs: dict[Variable, relay.Var] = field(default_factory=dict)
    outputs: tuple[Value, ...] = ()

    def imported(self) -> Imported:
        """The model in terms of values."""
        outputs = frozenset(value for value in self.outputs if isinstance(value, Variable))
        return Imported(self.calls, outputs, self.sources, self.named)


def import_onnx(model: onnx.ModelProto) -> RelayModel:
    """Imports a cleaned model; raises UnsupportedError for a node that TVM refuses and whose shape ONNX cannot tell."""
    imported, opset, types = RelayModel(), opset_of(model), _inferred_types(model)
    for tensor in model.graph.initializer:
        imported.named[tensor.name] = Constant(numpy_helper.to_array(tensor))
    for info in input_infos(model):
        variable = Variable(info.name, info.shape, info.dtype)
        imported.named[info.name] = variable
        imported.inputs[variable] = relay.var(info.name, shape=info.shape, dtype=info.dtype)
    for node in model.graph.node:
        _import_node(imported, node, opset, types)
    imported.outputs = tuple(imported.named[value.name] for value in model.graph.output)
    return imported


def _import_node(imported: RelayModel, node: onnx.NodeProto, opset: int, types: Mapping[str, Type]) -> None:
    form = _form(imported, node, opset, types)
    for name, result in form.results.items():
        alias = next((operand for operand, variable in form.operands.items() if variable.same_as(result)), None)
        if alias is not None:
            imported.named[name] = imported.named[alias]
        elif isinstance(result, relay.Constant):
            imported.named[name] = Constant(result.data.numpy())
        else:
            variable = Variable(name, *form.types[name])
            imported.named[name] = variable
            imported.sources[variable] = Source(node, name)
            imported.calls[variable] = _call(imported, node)
    imported.forms[node.name] = form


def _call(imported: RelayModel, node: onnx.NodeProto) -> Call:
    operands = tuple(imported.named[name] for name in node.input if name)
    operator = _CODING.get(node.op_type, OTHER)
    if operator == OTHER:
        return Call(OTHER, tuple(value for value in operands if isinstance(value, Variable)))
    axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)
    return Call(operator, operands, int(axis))


def _form(imported: RelayModel, node: onnx.NodeProto, opset: int, types: Mapping[str, Type]) -> NodeForm:
    operands = {name: imported.named[name] for name in node.input if name}
    variables = {name: relay.var(f"operand{index}", shape=value.shape, dtype=value.dtype)
                 for index, (name, value) in enumerate(operands.items()) if isinstance(value, Variable)}  # fmt: skip
    constants = {name: value.array for name, value in operands.items() if isinstance(value, Constant)}
    wanted = {name: types[name] for name in node.output if name in types}
    try:
        results = _NodeConverter(variables, constants, opset).convert(node)
        made = {name: _type_of(result) for name, result in results.items()}
        if made == made | wanted:
            return NodeForm(variables, results, made)
        reason = f"it makes {made} of it where ONNX says {wanted}"
    except REFUSALS as error:
        reason = reason_of(error)
    refusal = (f"{node.op_type} {node.name!r}: TVM's importer refuses it: {reason}; replace the operator or cut the"
               " model before it")  # fmt: skip
    if len(wanted) < sum(map(bool, node.output)):
        raise UnsupportedError(refusal)
    return NodeForm(variables, {name: relay.zeros(*each) for name, each in wanted.items()}, wanted, refusal)


def _type_of(result: relay.Expr) -> Type:
    if isinstance(result, relay.Constant):
        return tuple(result.data.shape), str(result.data.dtype)
    is_known = isinstance(result, relay.Var)
    checked = result.type_annotation if is_known else infer_type(result).checked_type
    return tuple(int(extent) for extent in checked.shape), str(checked.dtype)


def _inferred_types(model: onnx.ModelProto) -> Mapping[str, Type]:
    """What ONNX says of the values of a model, where it knows all extents."""
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    values = (*inferred.graph.value_info, *inferred.graph.output)
    static = (value for value in values if value.type.tensor_type.elem_type
              and value.type.tensor_type.HasField("shape")
              and all(dim.HasField("dim_value") for dim in value.type.tensor_type.shape.dim))  # fmt: skip
    return {info.name: (info.shape, info.dtype) for info in map(tensor_info, static)}


@cache
def _converters(opset: int) -> Mapping[str, Any]:
    """TVM's converters of ONNX operators by type."""
    return dict(_get_convert_map(opset))


class _NodeConverter(GraphProto):  # type: ignore[misc]
    """TVM's importer for one node; constants fold only where a node reads nothing else."""

    def __init__(self, variables: Mapping[str, relay.Var], constants: Mapping[str, np.ndarray], opset: int) -> None:
        super().__init__({}, "float32", freeze_params=True, op_type_dict={})
        self.opset = opset
        self.output_names: list[str] = []
        self._constants = constants
        self._variables = variables
        self._nodes = {**variables, **{name: constant(array) for name, array in constants.items()}}

    def convert(self, node: onnx.NodeProto) -> Mapping[str, relay.Expr]:
        """The node's results by name."""
        with _silent(), self:
            for inner in self._expanded(node):
                self._convert(inner)
        results = {name: self._nodes[name] for name in node.output if name and name in self._nodes}
        if self._variables or node.op_type == "DequantizeLinear":
            return results
        return {name: fold_constant(result) for name, result in results.items()}

    def _expanded(self, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        """The node, or those that TVM knows in its place, whose constants are at hand afterwards."""
        tensors = [numpy_helper.from_array(np.ascontiguousarray(each), name) for name, each in self._constants.items()]
        constants = Constants(tensors)
        shapes = {name: tuple(int(extent) for extent in variable.type_annotation.shape)
                  for name, variable in self._variables.items()}  # fmt: skip
        shapes |= {name: array.shape for name, array in self._constants.items()}
        nodes = expansion(node, constants, shapes, self.opset)
        added = {name: constant(constants[name]) for name in constants if name not in self._constants}
        self._nodes.update(added)
        yield from [node] if nodes is None else nodes

    def _convert(self, node: onnx.NodeProto) -> None:
        operands = onnx_input(self._nodes[name] if name else None for name in node.input)
        result = self._structured(node, operands) or self._by_tvm(node, operands)
        if not isinstance(result, relay.expr.TupleWrapper):
            self._nodes[node.output[0]] = result
            return
        for index, name in enumerate(node.output):
            if name:
                self._nodes[name] = result[index]

    def _structured(self, node: onnx.NodeProto, operands: list[relay.Expr | None]) -> relay.Expr | None:
        types = [((), "") if operand is None else _type_of(operand) for operand in operands]
        arrays = [each.data.numpy() if isinstance(each, relay.Constant) else None for each in operands]
        return structured(node, operands, [shape for shape, _ in types], arrays)

    def _by_tvm(self, node: onnx.NodeProto, operands: list[relay.Expr | None]) -> relay.Expr | relay.expr.TupleWrapper:
        attributes = self._parse_attr(node.attribute)
        attributes["tvm_custom"] = {"name": node.name, "num_outputs": len(node.output)}
        if node.op_type in _POOLS and "auto_pad" not in attributes:
            # TVM asks for what ONNX leaves out.
            attributes = {"pads": (0,) * 2 * len(attributes["kernel_shape"]), "ceil_mode": 0, **attributes}
        if node.op_type == "LpPool":
            # TVM raises to the power first, which keeps the sign of odd ones.
            operands[0] = relay.abs(operands[0])
        return self._convert_operator(node.op_type, operands, attributes, self.opset)

    def _convert_operator(self, op_name: str, inputs: list[Any], attrs: dict[str, Any], opset: int) -> Any:
        converter = _converters(opset).get(op_name)
        if converter is None:
            raise NotImplementedError(f"Operator {op_name} not implemented.")
        return converter(inputs, attrs, self._params)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """TVM prints before it raises, and warns of what the clean-up has settled."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def reason_of(error: Any) -> str:
    """The last line that TVM says."""
    lines = [line for line in str(error).strip().splitlines() if line.strip()] or [type(error).__name__]
    return lines[-1].strip().partition("Check failed: ")[2] or lines[-1].strip().rstrip(".")
