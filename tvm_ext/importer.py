"""TVM's own ONNX importer for Relax, made to say which ONNX node every value came from."""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import onnx
import tvm
from tvm import relax
from tvm.relax.frontend.onnx.onnx_frontend import ONNXGraphImporter

from npu_backend.errors import UnsupportedError
from tvm_ext.onnx_constants import Constants
from tvm_ext.onnx_expansion import expansion
from tvm_ext.onnx_opset import opset_of
from tvm_ext.structured import array, structured
from tvm_ext.values import Source
from tvm_ext.whole import HOST_FORM, is_one_call, whole

# What TVM's converters raise for a form they do not know; they have no error class of their own for it.
_REFUSALS = (ValueError, TypeError, LookupError, AttributeError, AssertionError, NotImplementedError, RuntimeError)


@dataclass(frozen=True)
class ImportedModule:
    """A Relax module whose ``main`` is the model, the ONNX source of its variables, and what each ONNX value became.

    `host_forms`: what TVM computes for an operator, by the ONNX node's name.
    """

    module: tvm.IRModule
    sources: Mapping[relax.Var, Source]
    named: Mapping[str, relax.Expr]
    host_forms: Mapping[str, tvm.IRModule]


def import_onnx(model: onnx.ModelProto) -> ImportedModule:
    """Imports a cleaned model; raises UnsupportedError naming the node and the reason where TVM refuses."""
    importer = _Importer()
    # The importer prints before it raises, and warns of what the clean-up has settled.
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), _abandoned(importer.bb):
        warnings.simplefilter("ignore")
        module = importer.from_onnx(model.graph, opset_of(model))
    return ImportedModule(module, importer.sources, importer.named, importer.host_forms)


@contextlib.contextmanager
def _abandoned(builder: relax.BlockBuilder) -> Iterator[None]:
    """Closes the block that an error leaves open: TVM would warn of it beside our message."""
    try:
        yield
    except (UnsupportedError, *_REFUSALS):
        builder._end_block()
        raise


def _reason(error: Exception) -> str:
    """The last line that TVM says, without its own spelling of operators and numbers."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    plain = re.sub(r"In ir\.Op\(.*?support_level=\d+\), ", "", lines[-1])
    return re.sub(r"T\.int64\((-?\d+)\)", r"\1", plain).rstrip(".")


class _NodeImporter(ONNXGraphImporter):  # type: ignore[misc]
    """TVM's importer, a few operators structured."""

    def __init__(self) -> None:
        super().__init__({}, "float32", keep_params_in_input=False, sanitize=False)

    def host_form(self, node: onnx.NodeProto, operands: Mapping[str, relax.Expr], opset: int) -> tvm.IRModule:
        """The operator as TVM computes it: a function of what is computed among `operands`, constants inside."""
        variables = {value: relax.Var(value.name, value.ty) for value in operands.values()
                     if isinstance(value, relax.Var)}  # fmt: skip
        self.opset = opset
        self._nodes = {name: variables.get(value, value) for name, value in operands.items()}
        nodes = self._expanded(node, operands)
        with _abandoned(self.bb), self.bb.function(HOST_FORM, list(variables.values())):
            with self.bb.dataflow():
                self._construct_nodes(SimpleNamespace(node=nodes))
                results = [self._nodes[name] for name in node.output if name]
                output = self.bb.emit_output(results[0] if len(results) == 1 else relax.Tuple(results))
            self.bb.emit_func_output(output)
        return self.bb.get()

    def _expanded(self, node: onnx.NodeProto, operands: Mapping[str, relax.Expr]) -> Sequence[onnx.NodeProto]:
        """The node, or those that TVM knows in its place, whose constants are at hand afterwards."""
        numbers = {name: array(value) for name, value in operands.items()}
        constants = Constants([onnx.numpy_helper.from_array(number, name) for name, number in numbers.items()
                               if number is not None])  # fmt: skip
        shapes = {name: tuple(int(extent) for extent in value.ty.shape) for name, value in operands.items()}
        nodes = expansion(node, constants, shapes, self.opset)
        if nodes is None:
            return [node]
        self._nodes.update({name: relax.const(constants[name]) for name in constants if name not in operands})
        return nodes

    def _convert_operator(self, op_name: str, inputs: list[Any], attrs: dict[str, Any], opset: int) -> relax.Expr:
        call = structured(op_name, inputs, attrs, opset)
        return super()._convert_operator(op_name, inputs, attrs, opset) if call is None else self.bb.normalize(call)


class _Importer(_NodeImporter):
    """Imports node by node and keeps together what TVM would spread over several calls."""

    def __init__(self) -> None:
        super().__init__()
        self.sources: dict[relax.Var, Source] = {}
        self.host_forms: dict[str, tvm.IRModule] = {}

    @property
    def named(self) -> Mapping[str, relax.Expr]:
        """Variables and constants by ONNX name."""
        return {name: value for name, value in self._nodes.items()
                if isinstance(value, relax.Var | tvm.ir.GenericConst)}  # fmt: skip

    def _check_for_unsupported_ops(self, graph: onnx.GraphProto) -> None:
        """Left to `_construct_nodes`, which knows the node's name."""

    def _construct_nodes(self, graph: onnx.GraphProto) -> None:
        for node in graph.node:
            try:
                self._construct(node)
            except _REFUSALS as error:
                raise UnsupportedError(f"{node.op_type} {node.name!r}: TVM's importer refuses it: {_reason(error)};"
                                       " replace the operator or cut the model before it") from error  # fmt: skip
            for index, name in enumerate(node.output):
                if name:
                    self._record(node, name, index)

    def _construct(self, node: onnx.NodeProto) -> None:
        operands = {name: self._nodes[name] for name in node.input if name}
        computed = any(isinstance(value, relax.Var) for value in operands.values())
        if computed:
            host_form = self.host_forms[node.name] = _NodeImporter().host_form(node, operands, self.opset)
            if not is_one_call(host_form):
                self._keep_whole(node, host_form)
                return
        super()._construct_nodes(SimpleNamespace(node=[node]))

    def _keep_whole(self, node: onnx.NodeProto, host_form: tvm.IRModule) -> None:
        operands = [self._nodes[name] for name in node.input if name]
        result = self.bb.emit(whole(node.op_type, operands, host_form), name_hint=node.name)
        outputs = [name for name in node.output if name]
        self.sources[result] = Source(node, outputs[0])
        items = [result] if len(outputs) == 1 else [relax.TupleGetItem(result, i) for i in range(len(outputs))]
        self._nodes.update(zip(outputs, items, strict=True))

    def _record(self, node: onnx.NodeProto, name: str, index: int) -> None:
        value = self._nodes[name]
        if isinstance(value, tvm.ir.Call | relax.TupleGetItem):
            value = self._nodes[name] = self.bb.emit(value, name_hint=f"{node.name}.{index}" if index else node.name)
        if isinstance(value, relax.Var) and value not in self.sources:
            self.sources[value] = Source(node, name)
