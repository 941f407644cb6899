"""What Relay computes on the host, on the vector processors, and beside an NPU that takes a part."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from npu_backend import compile_graph, load_machine, strategy_named
from npu_backend.errors import InputError, ToolchainError, UnsupportedError
from npu_backend.graph import Graph
from tests.tvm_ext.by_runtime import assert_close, by_onnx_runtime
from tests.tvm_ext.node_cases import CASES, NodeCase
from tests.tvm_ext.one_node import feed_of, normal, one_node
from tests.tvm_ext.small_models import BUILDERS, feeds, quantized_small
from tvm_ext.driver import CompiledModel, PackageRunner, compile_model, front_end_options, import_model

# Computes no floats.
MACHINE = "exynos2100"


def compiled(model: onnx.ModelProto, folder: Path, *, kernels: bool = False) -> CompiledModel:
    options = front_end_options(load_machine(MACHINE), kernels=kernels)

    def compile_one(graph: Graph) -> bytes:
        return compile_graph(graph, load_machine(MACHINE).take(3), strategy_named("base").alone).to_bytes()

    path = folder / "model.onnx"
    onnx.save(model, path)
    return compile_model(path, machine=MACHINE, cores=3, strategy="base", compile_graph=compile_one, **options)


# ONNX Runtime has no kernel for it; onnx 1.18's reference evaluator, which tells the host's form of a resize, rounds
# otherwise than later ones.
LEFT_OUT = ("ConvInteger", "Resize-axes")
COMPARED = [case for case in CASES if str(case) not in LEFT_OUT]


# Half of the forms on the host, the other half as kernels: each takes TVM's compiler a second.
@pytest.mark.parametrize("case", COMPARED[::2], ids=str)
def test_floats_on_the_host(case: NodeCase, tmp_path: Path) -> None:
    model = case.model()
    feed = feed_of(model, case.operands)
    with PackageRunner(compiled(model, tmp_path).package) as runner:
        assert_close(list(runner.run(feed).values()), by_onnx_runtime(model, feed), 1e-4)


@pytest.mark.parametrize("case", COMPARED[1::2], ids=str)
def test_floats_as_kernels(case: NodeCase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = case.model()
    feed = feed_of(model, case.operands)
    monkeypatch.setenv("NPU_CHECK", "1")
    with PackageRunner(compiled(model, tmp_path, kernels=True).package) as runner:
        assert_close(list(runner.run(feed).values()), by_onnx_runtime(model, feed), 1e-4)


@pytest.mark.parametrize("name", BUILDERS)
def test_codes_beside_the_host(name: str, tmp_path: Path) -> None:
    model = quantized_small(name)
    made = compiled(model, tmp_path)
    (feed,) = feeds(model)
    with PackageRunner(made.package) as runner:
        outputs = runner.run(feed)
    for got, wanted in zip(outputs.values(), by_onnx_runtime(model, feed), strict=True):
        steps = np.diff(np.unique(wanted))
        # Where ONNX Runtime computes in float between codes, one step of the output's scale.
        assert np.abs(got - wanted).max() <= (steps.min() if steps.size else 0) * 1.001


def test_library_holds_no_weight_twice(tmp_path: Path) -> None:
    model = quantized_small("conv")
    weights = (each.raw_data for each in model.graph.initializer if each.data_type == onnx.TensorProto.INT8)
    assert compiled(model, tmp_path).package.library.count(max(weights, key=len)) == 0


def test_wrong_input_is_named(tmp_path: Path) -> None:
    with PackageRunner(compiled(quantized_small("conv"), tmp_path).package) as runner, pytest.raises(InputError):
        runner.run({"x0": np.zeros((1, 2), np.float32)})


def test_operator_that_nobody_knows_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="Det 'node': TVM's importer refuses it"):
        compiled(one_node("Det", [normal(3, 3)]), tmp_path)


def test_operator_without_loops_says_so(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(one_node("CumSum", [normal(3, 4), np.array(1, np.int64)], (1,)), path)
    (left,) = import_model(path, kernel_spm_bytes=1 << 20).partitioned.host_ops
    assert left.reason.endswith("no kernel either: TVM does not lower cumsum to loops over elements")


def test_linker_that_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "false")
    with pytest.raises(ToolchainError, match="TVM cannot link the library: "):
        compiled(quantized_small("conv"), tmp_path)
