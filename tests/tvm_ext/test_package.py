"""Packages: written whole, read back checked, and run by TVM's runtime alone."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from npu_backend import compile_graph, load_machine, strategy_named
from npu_backend.errors import InputError, OutputError, ProgramError
from npu_backend.graph import Graph
from tests.tvm_ext.small_models import BUILDERS, feeds, quantized_small
from tests.tvm_ext.test_import import outputs_of
from tvm_ext.driver import CompiledModel, PackageRunner, compile_model, run_package
from tvm_ext.package import FORMAT_VERSION, METADATA, Package, read_package, write_package

MACHINE = "exynos2100"

# Loads the library with nothing but TVM's runtime; this project's packages are refused.
PLAIN_SCRIPT = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("npu_backend", "tvm_ext", "onnx", "onnxruntime"):
            raise ImportError(name)

sys.meta_path.insert(0, Refuse())
import tarfile
import numpy
import tvm
from tvm import relax

package, folder, array, result = sys.argv[1:]
with tarfile.open(package) as tar, open(folder + "/mod.so", "wb") as library:
    library.write(tar.extractfile("mod.so").read())
machine = relax.VirtualMachine(tvm.runtime.load_module(folder + "/mod.so"), tvm.cpu())
output = machine["main"](tvm.runtime.tensor(numpy.load(array)))
numpy.save(result, output.numpy())
"""


def program_of(graph: Graph) -> bytes:
    return compile_graph(graph, load_machine(MACHINE), strategy_named("base")).to_bytes()


def compiled_from(model: onnx.ModelProto, folder, compile_one=program_of) -> CompiledModel:
    path = folder / "model.onnx"
    onnx.save(model, path)
    return compile_model(path, machine=MACHINE, cores=3, strategy="base", compile_graph=compile_one)


@pytest.fixture(scope="module")
def conv(tmp_path_factory):
    """A compiled convolution, its model and its package file."""
    folder = tmp_path_factory.mktemp("conv")
    model = quantized_small("conv_relu")
    compiled = compiled_from(model, folder)
    compiled.save(folder / "conv.tar")
    return model, compiled, folder / "conv.tar"


def rewritten(source, target, change):
    """A copy of a package whose members went through `change(name, data)`; None drops one."""
    with tarfile.open(source) as old, tarfile.open(target, "w") as new:
        for member in old:
            data = change(member.name, old.extractfile(member).read())
            if data is not None:
                member.size = len(data)
                new.addfile(member, io.BytesIO(data))
    return target


def test_package_equals_onnx_runtime(conv):
    model, _, path = conv
    (inputs,) = feeds(model)
    expected = outputs_of(model, inputs)
    for threads in (1, 2):
        actual = run_package(path, inputs, threads)
        assert list(actual) == list(expected)
        for name in expected:
            np.testing.assert_array_equal(actual[name], expected[name])


@pytest.mark.parametrize("name", ["float_middle", "split", "shared_dequantize", "concat"])
def test_packages_of_several_programs_inputs_and_outputs(name, tmp_path):
    model = quantized_small(name)
    compiled = compiled_from(model, tmp_path)
    assert len(compiled.package.programs) == (2 if name == "float_middle" else 1)
    (inputs,) = feeds(model)
    with PackageRunner(compiled.package) as runner:
        actual = runner.run(inputs)
    for output, values in outputs_of(model, inputs).items():
        np.testing.assert_allclose(actual[output], values, atol=1e-6)


def test_float_model_runs_on_the_host(tmp_path):
    model = BUILDERS["split"]()
    compiled = compiled_from(model, tmp_path)
    assert compiled.package.programs == {}
    assert {op.name for op in compiled.package.metadata.host_ops} == {"split", "relu", "sigmoid"}
    (inputs,) = feeds(model)
    with PackageRunner(compiled.package) as runner:
        actual = runner.run(inputs)
    for output, values in outputs_of(model, inputs).items():
        np.testing.assert_allclose(actual[output], values, atol=1e-5)


def test_plain_script_runs_the_package(conv, tmp_path):
    """A fresh process without this project and without a compiler."""
    model, _, path = conv
    (inputs,) = feeds(model)
    np.save(tmp_path / "input.npy", inputs["x0"])
    arguments = [str(path), str(tmp_path), str(tmp_path / "input.npy"), str(tmp_path / "output.npy")]
    result = subprocess.run(
        [sys.executable, "-I", "-c", PLAIN_SCRIPT, *arguments],
        env={"PATH": str(tmp_path), "HOME": str(tmp_path)}, cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "output.npy"), outputs_of(model, inputs)["relu.out"])


def test_metadata(conv):
    _, compiled, path = conv
    package = read_package(path)
    assert package == compiled.package
    metadata = package.metadata
    assert (metadata.model, metadata.machine, metadata.cores, metadata.strategy) == ("conv_relu", MACHINE, 3, "base")
    assert [(t.name, t.shape, t.dtype) for t in metadata.inputs] == [("x0", (1, 6, 9, 8), "float32")]
    assert [(t.name, t.shape, t.dtype) for t in metadata.outputs] == [("relu.out", (1, 8, 5, 4), "float32")]
    assert ("conv", "Conv", "npu_0") in {(op.name, op.op, op.partition) for op in metadata.npu_ops}
    assert metadata.host_ops == ()
    assert package.programs["npu_0"] == compiled.package.programs["npu_0"]


def test_same_package_same_bytes(conv, tmp_path):
    _, compiled, path = conv
    compiled.save(tmp_path / "again.tar")
    assert (tmp_path / "again.tar").read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"y": np.zeros(1)}, "the model has no input 'y'; its inputs: x0"),
        ({}, "input 'x0' is missing; the model's inputs: x0"),
        ({"x0": np.zeros((1, 6, 9, 9), np.float32)}, r"float32\[1, 6, 9, 9\]; the model takes float32\[1, 6, 9, 8\]"),
        ({"x0": np.zeros((1, 6, 9, 8))}, r"float64\[1, 6, 9, 8\]; the model takes float32"),
    ],
)
def test_inputs_that_do_not_fit(conv, given, message):
    with pytest.raises(InputError, match=message):
        run_package(conv[2], given)


@pytest.mark.parametrize("part", [0.0, 0.001, 0.3, 0.7])
def test_truncated_package(conv, tmp_path, part):
    data = conv[2].read_bytes()
    path = tmp_path / "cut.tar"
    path.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(ProgramError, match=r"cut.tar: "):
        read_package(path)


def test_missing_package(tmp_path):
    with pytest.raises(ProgramError, match=r"none.tar: no such file"):
        read_package(tmp_path / "none.tar")


def test_corrupted_member(conv, tmp_path):
    path = rewritten(
        conv[2], tmp_path / "bad.tar", lambda name, data: data[:-1] + b"?" if name == "npu_0.npu" else data
    )
    with pytest.raises(ProgramError, match=r"npu_0.npu is corrupted"):
        read_package(path)


def test_missing_member(conv, tmp_path):
    path = rewritten(conv[2], tmp_path / "bad.tar", lambda name, data: None if name == "mod.so" else data)
    with pytest.raises(ProgramError, match=r"lacks mod.so"):
        read_package(path)


def test_other_archive(conv, tmp_path):
    path = rewritten(conv[2], tmp_path / "bad.tar", lambda name, data: None if name == METADATA else data)
    with pytest.raises(ProgramError, match="no package of this compiler"):
        read_package(path)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("format_version", FORMAT_VERSION + 1, f"version {FORMAT_VERSION + 1}, this program reads version"),
        ("format", "other", "no package of this compiler"),
        ("checksums", {}, "npu.json is corrupted"),
        ("metadata", {}, "npu.json is corrupted"),
        ("metadata", None, "npu.json is corrupted"),
    ],
)
def test_other_metadata(conv, tmp_path, key, value, message):
    def change(name, data):
        return json.dumps({**json.loads(data), key: value}).encode() if name == METADATA else data

    with pytest.raises(ProgramError, match=message):
        read_package(rewritten(conv[2], tmp_path / "bad.tar", change))


def test_package_of_another_processor(conv):
    package: Package = conv[1].package
    foreign = replace(package, metadata=replace(package.metadata, host="pdp11-unix"))
    with pytest.raises(ProgramError, match="is for pdp11-unix, this machine is"):
        PackageRunner(foreign)


def test_unwritable_path_leaves_nothing(conv, tmp_path):
    package = conv[1].package
    with pytest.raises(OutputError, match=r"cannot write .*/none/conv.tar: "):
        write_package(package, tmp_path / "none" / "conv.tar")
    (tmp_path / "taken").mkdir()
    with pytest.raises(OutputError, match=r"cannot write .*/taken: "):
        write_package(package, tmp_path / "taken")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_refused_program_names_itself(tmp_path):
    model = quantized_small("conv_relu")
    compiled = compiled_from(model, tmp_path, lambda graph: b"no program at all")
    with PackageRunner(compiled.package) as runner, pytest.raises(RuntimeError, match=r"npu_0: "):
        runner.run(feeds(model)[0])


def test_ports_of_whole_numbers_and_truth_values(tmp_path):
    """int64 in, int64 and bool out, with an operator of the host behind, so that the ports are TVM's tensors."""
    values = [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.INT64, [2, 5])]
    outputs = [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.BOOL, [2, 5]),
               onnx.helper.make_tensor_value_info("z", onnx.TensorProto.INT64, [2, 5])]  # fmt: skip
    nodes = [onnx.helper.make_node("Less", ["x", "bound"], ["less"]), onnx.helper.make_node("Trilu", ["less"], ["y"]),
             onnx.helper.make_node("Max", ["x", "bound"], ["z"])]  # fmt: skip
    bound = onnx.numpy_helper.from_array(np.array([3], np.int64), "bound")
    graph = onnx.helper.make_graph(nodes, "whole", values, outputs, [bound])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "whole.onnx")
    machine = load_machine("mesh16").take(2)

    def compile_one(graph: Graph) -> bytes:
        return compile_graph(graph, machine, strategy_named("base")).to_bytes()

    compiled = compile_model(tmp_path / "whole.onnx", machine="mesh16", cores=2, strategy="base", computes_float=True,
                             compile_graph=compile_one)  # fmt: skip
    assert {op.op for op in compiled.package.metadata.npu_ops} == {"Less", "Max"}
    inputs = {"x": np.arange(-2, 8).reshape(2, 5)}
    with PackageRunner(compiled.package) as runner:
        got = runner.run(inputs)
    for name, wanted in outputs_of(model, inputs).items():
        assert got[name].dtype == wanted.dtype
        assert (got[name] == wanted).all()


def test_linker_that_fails_is_told(tmp_path):
    """In a process of its own: TVM remembers what a compiler has said of its target."""
    onnx.save(quantized_small("conv"), tmp_path / "model.onnx")
    command = [Path(sys.executable).with_name("npuc"), "compile", "model.onnx", "-o", "package.tar"]
    environment = {**os.environ, "CXX": "false"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "TVM cannot link the library: " in done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
