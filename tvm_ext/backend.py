"""The NPU as a backend in ONNX's own sense: ``NpuBackend.prepare(model).run(inputs)``.

    from tvm_ext.backend import NpuBackend
    outputs = NpuBackend.run_model(onnx.load("model.onnx"), [array])

A model is compiled for three cores of the exynos2100, or what the keywords say, linked into a package and run by TVM's
runtime in this process, the NPU's part on the emulator. With symbolic extents it is compiled for the shapes of the
inputs that it is run on, once for each.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx.backend.base import Backend, BackendRep, Device, DeviceType, namedtupledict

from npu_backend import compile_graph, load_machine, strategy_named
from npu_backend.errors import InputError, NpuError, UnsupportedError
from npu_backend.graph import Graph
from npu_backend.machine import Machine
from npu_backend.strategies import Strategy
from tvm_ext.driver import PackageRunner, compile_imported, front_end_options, import_loaded
from tvm_ext.onnx_load import fix_shapes, is_static, model_inputs
from tvm_ext.package import Metadata

Array = npt.NDArray[Any]
HOST = "host"
MACHINE, CORES, STRATEGY = "exynos2100", 3, "stratum"
# What ONNX's test runner passes on with a case.
_TOLERANCES = {"rtol", "atol"}


@dataclass(frozen=True)
class Target:
    """What models are compiled for: cores of a machine and the strategy that divides layers among them."""

    machine: Machine
    strategy: Strategy

    @classmethod
    def named(cls, machine: str = MACHINE, cores: int = CORES, strategy: str = STRATEGY) -> Target:
        """By the names `npuc` knows; raises MachineError and OptionError."""
        return cls(load_machine(machine).take(cores), strategy_named(strategy))

    def program(self, graph: Graph) -> bytes:
        """The program file of an NPU graph."""
        return compile_graph(graph, self.machine, self.strategy).to_bytes()


@dataclass
class NpuRep(BackendRep):
    """A prepared model; `run` takes the inputs in the model's order, or by name."""

    model: onnx.ModelProto
    target: Target
    _runners: dict[tuple[tuple[int, ...], ...], tuple[PackageRunner, Metadata]] = field(default_factory=dict)
    _opened: ExitStack = field(default_factory=ExitStack)

    def __post_init__(self) -> None:
        """ONNX's interface has nothing to close a model by: its packages go with it."""
        weakref.finalize(self, self._opened.close)

    def run(self, inputs: Any, **_: Any) -> tuple[Array, ...]:
        """The outputs, in order and by name as a named tuple.

        Raises InputError for inputs that do not fit, and what compiling raises where the shapes are new.
        """
        arrays = self._by_name(inputs)
        runner, metadata = self._runner([np.shape(array) for array in arrays.values()])
        results = runner.run(arrays)
        names = [info.name for info in metadata.outputs]
        return namedtupledict("Outputs", names)(*(results[name] for name in names))

    def metadata(self) -> Metadata:
        """Of the package; of a model with symbolic extents, of the one that ran last. Raises InputError before."""
        if not self._runners:
            raise InputError("the model has symbolic extents and has not run yet: no package is made before")
        return list(self._runners.values())[-1][1]

    def places(self) -> dict[str, str]:
        """Where each operator runs, by the name of its ONNX node: ENGINE (of fixed function), VECTOR or HOST."""
        metadata = self.metadata()
        on_npu = {operator.name: operator.engine for operator in metadata.npu_ops}
        return on_npu | {operator.name: HOST for operator in metadata.host_ops}

    def compile(self, shapes: Sequence[tuple[int, ...]]) -> None:
        """Makes the package for inputs of these shapes, in order, unless it is there."""
        self._runner(shapes)

    def _by_name(self, inputs: Any) -> Mapping[str, Array]:
        names = [value.name for value in model_inputs(self.model)]
        if isinstance(inputs, Mapping):
            return {name: np.asarray(inputs[name]) for name in names if name in inputs}
        arrays = [inputs] if isinstance(inputs, np.ndarray) else list(inputs)
        if len(arrays) != len(names):
            raise InputError(f"the model has {len(names)} inputs ({', '.join(names)}) and was given {len(arrays)}")
        return dict(zip(names, map(np.asarray, arrays), strict=True))

    def _runner(self, shapes: Sequence[tuple[int, ...]]) -> tuple[PackageRunner, Metadata]:
        key = () if is_static(self.model) else tuple(map(tuple, shapes))
        if key not in self._runners:
            self._runners[key] = self._compiled(shapes)
        return self._runners[key]

    def _compiled(self, shapes: Sequence[tuple[int, ...]]) -> tuple[PackageRunner, Metadata]:
        names = [value.name for value in model_inputs(self.model)]
        given = {} if is_static(self.model) else dict(zip(names, shapes, strict=True))
        machine = self.target.machine
        front = import_loaded(lambda: fix_shapes(self.model, given), **front_end_options(machine))
        compiled = compile_imported(front, machine=machine.name, cores=len(machine.cores),
                                    strategy=self.target.strategy.name, compile_graph=self.target.program)  # fmt: skip
        return self._opened.enter_context(PackageRunner(compiled.package)), compiled.package.metadata


class NpuBackend(Backend):
    """ONNX's interface to the compiler and the emulator.

    Keywords of `prepare`, `run_model` and `run_node`: ``machine`` (name or TOML file), ``cores``, ``strategy``.
    """

    @classmethod
    def prepare(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> NpuRep:
        """The model compiled, or checked where its extents are symbolic.

        Raises UnsupportedError for what cannot run, and the other errors of `npu_backend.errors`, one per cause.
        """
        super().prepare(model, device, **kwargs)
        _check_types(model)
        rep = NpuRep(model, Target.named(**{name: kwargs[name] for name in kwargs if name not in _TOLERANCES}))
        if is_static(model):
            rep.compile([])
        return rep

    @classmethod
    def run_model(cls, model: onnx.ModelProto, inputs: Any, device: str = "CPU", **kwargs: Any) -> tuple[Array, ...]:
        """Compiled and run once."""
        return cls.prepare(model, device, **kwargs).run(inputs)

    @classmethod
    def run_node(
        cls, node: onnx.NodeProto, inputs: Any, device: str = "CPU", outputs_info: Any = None, **kwargs: Any
    ) -> tuple[Array, ...]:
        """A model of that node alone; `outputs_info`: data type and shape of each output."""
        opset_version = kwargs.pop("opset_version", onnx.defs.onnx_opset_version())
        super().run_node(node, inputs, device, outputs_info, opset_version=opset_version)
        arrays = [np.asarray(array) for array in ([inputs] if isinstance(inputs, np.ndarray) else inputs)]
        return cls.run_model(_model_of(node, arrays, outputs_info or (), opset_version), arrays, device, **kwargs)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """The NPU is emulated on the CPU."""
        return bool(Device(device).type == DeviceType.CPU)

    @classmethod
    def is_compatible(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> bool:
        """Whether the model compiles; with symbolic extents, whether it could."""
        try:
            cls.prepare(model, device, **kwargs)
        except (NpuError, onnx.checker.ValidationError):
            return False
        return True


def _check_types(model: onnx.ModelProto) -> None:
    """Refuses sequences, maps and optional values: the machine knows tensors."""
    for value in (*model_inputs(model), *model.graph.output):
        kind = value.type.WhichOneof("value")
        if kind != "tensor_type":
            raise UnsupportedError(f"{value.name!r} of {model.graph.name} is a {kind.removesuffix('_type')}; models"
                                   " take and give tensors: split it into one per element")  # fmt: skip
        if value.type.tensor_type.elem_type == onnx.TensorProto.STRING:
            raise UnsupportedError(f"{value.name!r} of {model.graph.name} holds strings; models compute numbers: encode"
                                   " them before")  # fmt: skip


def _model_of(
    node: onnx.NodeProto, arrays: Sequence[Array], outputs_info: Sequence[tuple[Any, Sequence[int]]], opset: int
) -> onnx.ModelProto:
    """ONNX infers the outputs where they are not given."""
    inputs = [_info(name, array.dtype, array.shape) for name, array in zip(filter(None, node.input), arrays)]
    outputs = [_info(name, np.dtype(dtype), shape) for name, (dtype, shape) in zip(node.output, outputs_info)]
    outputs = outputs or [onnx.ValueInfoProto(name=name) for name in node.output if name]
    graph = onnx.helper.make_graph([node], node.op_type, inputs, outputs)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid(node.domain, opset)])
    return model if outputs_info else onnx.shape_inference.infer_shapes(model)


def _info(name: str, dtype: np.dtype[Any], shape: Sequence[int]) -> onnx.ValueInfoProto:
    return onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(dtype), shape)
