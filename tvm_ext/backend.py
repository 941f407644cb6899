"""The NPU as a backend in ONNX's own sense: ``NpuBackend.prepare(model).run(inputs)``.

    from tvm_ext.backend import NpuBackend
    outputs = NpuBackend.run_model(onnx.load("model.onnx"), [array])

A model is compiled for three cores of the exynos2100, or what the keywords say, linked into a package and run by TVM's
runtime in this process, the NPU's part on the emulator. With symbolic extents, or inputs that are axes, shapes and the
like, it is compiled when it runs, once for every such shape and value.
"""

from __future__ import annotations

import weakref
from collections.abc import Hashable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx.backend.base import Backend, BackendRep, Device, DeviceType, namedtupledict

from npu_backend import compile_graph, load_machine, strategy_named
from npu_backend.errors import InputError, NpuError
from npu_backend.graph import Graph
from npu_backend.machine import Machine
from npu_backend.strategies import Strategy
from tvm_ext.driver import PackageRunner, compile_imported, front_end_options, import_loaded
from tvm_ext.onnx_load import Shapes, fix_shapes, is_static, model_inputs
from tvm_ext.onnx_opset import NEWEST_OPSET
from tvm_ext.onnx_parameters import parameter_inputs, with_parameters
from tvm_ext.onnx_refused import check_types
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
    _made: dict[Hashable, tuple[PackageRunner, Metadata]] = field(default_factory=dict)
    _opened: ExitStack = field(default_factory=ExitStack)

    def __post_init__(self) -> None:
        """ONNX's interface has nothing to close a model by: its packages go with it."""
        weakref.finalize(self, self._opened.close)
        self._parameters = parameter_inputs(self.model)
        self._is_static = is_static(self.model)
        if self._is_static and not self._parameters:
            self._package({})

    def run(self, inputs: Any, **_: Any) -> tuple[Any, ...]:
        """The outputs, in order and by name as a named tuple.

        Raises InputError for inputs that do not fit, and what compiling raises where shapes or parameters are new.
        """
        arrays = self._by_name(inputs)
        runner, metadata = self._package(arrays)
        results = runner.run({name: array for name, array in arrays.items() if name not in self._parameters})
        names = [info.name for info in metadata.outputs]
        return namedtupledict("Outputs", names)(*(results[name] for name in names))

    def metadata(self) -> Metadata:
        """Of the package made last. Raises InputError for a model that waits for shapes or parameters."""
        if not self._made:
            raise InputError("no package is made before the model has run: it has symbolic extents or inputs that are"
                             " parameters of operators")  # fmt: skip
        return list(self._made.values())[-1][1]

    def places(self) -> dict[str, str]:
        """Where each operator runs, by the name of its ONNX node: ENGINE (of fixed function), VECTOR or HOST."""
        metadata = self.metadata()
        on_npu = {operator.name: operator.engine for operator in metadata.npu_ops}
        return on_npu | {operator.name: HOST for operator in metadata.host_ops}

    def _by_name(self, inputs: Any) -> Mapping[str, Any]:
        names = [value.name for value in model_inputs(self.model)]
        if not isinstance(inputs, Mapping):
            values = [inputs] if isinstance(inputs, np.ndarray) else list(inputs)
            if len(values) != len(names):
                raise InputError(f"the model has {len(names)} inputs ({', '.join(names)}) and was given {len(values)}")
            inputs = dict(zip(names, values, strict=True))
        for name in names:
            if name not in inputs:
                raise InputError(f"input {name!r} is missing; the model's inputs: {', '.join(names)}")
        # A list is a sequence of tensors.
        return {name: value if isinstance(value, list) else np.asarray(value) for name, value in inputs.items()}

    def _package(self, arrays: Mapping[str, Any]) -> tuple[PackageRunner, Metadata]:
        """The package for inputs of these shapes and parameters of these values."""
        parameters = {name: arrays[name] for name in self._parameters}
        shapes = {} if self._is_static else {name: array.shape for name, array in arrays.items()
                                             if name not in parameters and not isinstance(array, list)}  # fmt: skip
        key = (*shapes.values(), *((array.shape, array.tobytes()) for array in parameters.values()))
        if key not in self._made:
            self._made[key] = self._compiled(with_parameters(self.model, parameters), shapes)
        return self._made[key]

    def _compiled(self, model: onnx.ModelProto, shapes: Shapes) -> tuple[PackageRunner, Metadata]:
        machine = self.target.machine
        front = import_loaded(lambda: fix_shapes(model, shapes), **front_end_options(machine))
        compiled = compile_imported(front, machine=machine.name, cores=len(machine.cores),
                                    strategy=self.target.strategy.name, compile_graph=self.target.program)  # fmt: skip
        return self._opened.enter_context(PackageRunner(compiled.package)), compiled.package.metadata


class NpuBackend(Backend):
    """ONNX's interface to the compiler and the emulator.

    Keywords of `prepare`, `run_model` and `run_node`: ``machine`` (name or TOML file), ``cores``, ``strategy``.
    """

    @classmethod
    def prepare(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> NpuRep:
        """The model compiled; with symbolic extents or parameters of operators as inputs, only checked.

        Raises UnsupportedError for what cannot run, and the other errors of `npu_backend.errors`, one per cause.
        """
        super().prepare(model, device, **kwargs)
        check_types(model)
        return NpuRep(model, Target.named(**{name: kwargs[name] for name in kwargs if name not in _TOLERANCES}))

    @classmethod
    def run_model(cls, model: onnx.ModelProto, inputs: Any, device: str = "CPU", **kwargs: Any) -> tuple[Array, ...]:
        """Compiled and run once."""
        return cls.prepare(model, device, **kwargs).run(inputs)

    @classmethod
    def run_node(
        cls, node: onnx.NodeProto, inputs: Any, device: str = "CPU", outputs_info: Any = None, **kwargs: Any
    ) -> tuple[Array, ...]:
        """A model of that node alone; `outputs_info`: data type and shape of each output."""
        opset_version = kwargs.pop("opset_version", min(onnx.defs.onnx_opset_version(), NEWEST_OPSET))
        super().run_node(node, inputs, device, outputs_info, opset_version=opset_version)
        arrays = [np.asarray(array) for array in ([inputs] if isinstance(inputs, np.ndarray) else inputs)]
        return cls.run_model(_model_of(node, arrays, outputs_info or (), opset_version), arrays, device, **kwargs)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """The NPU is emulated on the CPU."""
        return bool(Device(device).type == DeviceType.CPU)

    @classmethod
    def is_compatible(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> bool:
        """Whether `prepare` takes the model."""
        try:
            cls.prepare(model, device, **kwargs)
        except (NpuError, onnx.checker.ValidationError):
            return False
        return True


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
