"""The unmodified `tvmc` command with the NPU as a target: compile, run, errors, and what it leaves alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from npu_backend.program import Program
from tests.tvm_ext.by_runtime import by_onnx_runtime
from tests.tvm_ext.small_models import feeds, quantized_small
from tvm_ext.package import PARAMETERS, read_package
from tvm_ext.tuning import read_records

TARGET = "npu -machine=exynos2100 -cores=3 -strategy=stratum, llvm"
HOST = "llvm -mtriple=x86_64-linux-gnu"
# All small models run through the driver in tests/relay; here each takes two processes.
SAMPLE = ("conv_relu", "concat", "split", "float_middle", "shared_dequantize", "gemm")
# tvmc's own exit code of a user's mistake.
MISTAKE = 4


def tvmc(*arguments: object, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command as a user runs it: its script, in a process of its own."""
    script = Path(sys.executable).with_name("tvmc")
    command = [str(script), *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False,
                          env={**os.environ, **environment})  # fmt: skip


def compiled(folder: Path, *options: str, target: str = TARGET) -> Path:
    done = tvmc("compile", "--target", target, "model.onnx", "-o", "model.tar", *options, folder=folder)
    assert done.returncode == 0, done.stderr
    return folder / "model.tar"


@pytest.fixture
def conv(tmp_path: Path) -> Path:
    """A folder with a quantised convolution, `model.onnx`, and its input, `in.npz`."""
    model = quantized_small("conv_relu")
    onnx.save(model, tmp_path / "model.onnx")
    np.savez(tmp_path / "in.npz", **feeds(model)[0])
    return tmp_path


@pytest.mark.parametrize("name", SAMPLE)
def test_compiled_and_run_in_two_processes(name: str, tmp_path: Path) -> None:
    model = quantized_small(name)
    (feed,) = feeds(model)
    onnx.save(model, tmp_path / "model.onnx")
    np.savez(tmp_path / "in.npz", **feed)
    package = compiled(tmp_path)
    done = tvmc("run", package, "--inputs", "in.npz", "--outputs", "out.npz", "--print-time", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "mean (ms)" in done.stdout
    outputs = np.load(tmp_path / "out.npz")
    for index, wanted in enumerate(by_onnx_runtime(model, feed)):
        steps = np.diff(np.unique(wanted))
        # Where ONNX Runtime computes in float between codes, one step of the output's scale.
        assert np.abs(outputs[f"output_{index}"] - wanted).max() <= (steps.min() if steps.size else 0) * 1.001


def test_package_holds_what_both_commands_read(conv: Path) -> None:
    package = read_package(compiled(conv))
    assert (package.metadata.machine, package.metadata.cores, package.metadata.strategy) == ("exynos2100", 3, "stratum")
    assert {op.op for op in package.metadata.npu_ops} >= {"Conv"}
    assert Program.from_bytes(package.programs["npu_0"]).machine["core_count"] == 3
    with tarfile.open(conv / "model.tar") as tar:
        assert {"mod.so", "mod.json", "mod.params", "npu.json", "npu_0.npu"} == set(tar.getnames())


def test_npuc_runs_what_tvmc_compiled(conv: Path) -> None:
    command = [sys.executable, "-m", "tvm_ext.cli", "run", str(compiled(conv)), "--inputs", "in.npz", "--check",
               "--verify", "--reference", "model.onnx"]  # fmt: skip
    done = subprocess.run(command, cwd=conv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "equal" in done.stdout


def test_tvmc_runs_what_npuc_compiled(conv: Path) -> None:
    command = [sys.executable, "-m", "tvm_ext.cli", "compile", "model.onnx", "-o", "model.tar", "--target", TARGET]
    subprocess.run(command, cwd=conv, capture_output=True, check=True)
    done = tvmc("run", "model.tar", "--inputs", "in.npz", "--outputs", "out.npz", folder=conv)
    assert done.returncode == 0, done.stderr
    model = onnx.load(conv / "model.onnx")
    (wanted,) = by_onnx_runtime(model, dict(np.load(conv / "in.npz")))
    np.testing.assert_array_equal(np.load(conv / "out.npz")["output_0"], wanted)


def test_kernels_are_in_the_package(tmp_path: Path) -> None:
    values = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [4, 8]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Sin", ["x"], ["y"])], "sine", values[:1], values[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8),
              tmp_path / "model.onnx")  # fmt: skip
    package = compiled(tmp_path)
    assert [op.engine for op in read_package(package).metadata.npu_ops] == ["vector"]
    done = tvmc("run", package, "--fill-mode", "ones", "--outputs", "out.npz", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(np.load(tmp_path / "out.npz")["output_0"], np.sin(1), rtol=1e-6)


def test_options_of_their_own(conv: Path) -> None:
    options = ("--target-npu-cores", "2", "--target-npu-strategy", "base")
    package = read_package(compiled(conv, *options, target="npu, llvm"))
    assert (package.metadata.cores, package.metadata.strategy) == (2, "base")


def test_tuned_and_compiled_by_the_records(conv: Path) -> None:
    done = tvmc("tune-npu", "model.onnx", "-o", "model.jsonl", folder=conv)
    assert done.returncode == 0, done.stderr
    best = min(read_records(conv / "model.jsonl"), key=lambda each: (each.latency_us, each.cores, each.strategy))
    assert done.stdout.splitlines()[1].split()[:2] == [best.strategy, str(best.cores)]
    for options, target in (((), f"npu -tuning-records={conv}/model.jsonl,llvm"),
                            (("--tuning-records", "model.jsonl"), "npu, llvm")):  # fmt: skip
        metadata = read_package(compiled(conv, *options, target=target)).metadata
        assert (metadata.strategy, metadata.cores) == (best.strategy, best.cores)


def test_dump_code(conv: Path) -> None:
    compiled(conv, "--dump-code", "relay,npu")
    assert "npu_0" in (conv / "model.tar.relay").read_text()
    assert "CONV" in (conv / "model.tar.npu").read_text()


MISTAKES = [
    ("npu -cores=9, llvm", (), "machine exynos2100 has 3 cores"),
    ("npu -core=2, llvm", (), "'-core=2' is no option of npu; there are -machine="),
    ("npu -cores=two, llvm", (), "must be a whole number"),
    ("npu -machine=exinos, llvm", (), "exinos"),
    ("npu -strategy=fast, llvm", (), "fast"),
    ("npu", (), "The last target needs to be a TVM target"),
    (TARGET, ("--desired-layout", "NHWC"), "--desired-layout: the NPU is given the ONNX file as it is"),
    (TARGET, ("--dump-code", "asm"), "there is no code for the host beside the NPU's"),
    (TARGET, ("--output-format", "mlf"), "leave out use_vm, and --output-format"),
    (TARGET, ("--tuning-records", "none.jsonl"), "--tuning-records none.jsonl: no such file"),
]
# Starting TVM takes as long as all of them.
EACH_MISTAKE = """
import contextlib, io, json, sys
from tvm.driver.tvmc.main import _main
for target, options in json.loads(sys.argv[1]):
    told = io.StringIO()
    with contextlib.redirect_stderr(told):
        code = _main(["compile", "--target", target, "model.onnx", "-o", "model.tar", *options])
    print(json.dumps([code, told.getvalue()]))
"""


def test_mistakes(conv: Path) -> None:
    given = json.dumps([(target, options) for target, options, _ in MISTAKES])
    done = subprocess.run([sys.executable, "-c", EACH_MISTAKE, given], cwd=conv, capture_output=True, text=True,
                          check=True)  # fmt: skip
    for (target, options, message), line in zip(MISTAKES, done.stdout.splitlines(), strict=True):
        code, told = json.loads(line)
        assert (code, message in told, told.count("\n")) == (MISTAKE, True, 1), (target, options, told)
    assert not (conv / "model.tar").exists()


def test_a_mistake_ends_the_command(conv: Path) -> None:
    done = tvmc("compile", "--target", "npu -cores=9, llvm", "model.onnx", "-o", "model.tar", folder=conv)
    assert done.returncode == MISTAKE
    assert done.stderr.startswith("Error: machine exynos2100 has 3 cores")
    assert "Traceback" not in done.stderr


def test_python_interface(conv: Path) -> None:
    script = (
        "from tvm.driver import tvmc; import numpy as np\n"
        f"package = tvmc.compile(tvmc.load('model.onnx'), target={TARGET!r}, package_path='model.tar')\n"
        "result = tvmc.run(package, device='cpu', inputs=dict(np.load('in.npz')))\n"
        "np.savez('out.npz', **result.outputs)\n"
        # Nothing of the NPU's gets into the package that is made next.
        f"tvmc.compile(tvmc.load('model.onnx'), target={HOST!r}, package_path='host.tar')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=conv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wanted,) = by_onnx_runtime(onnx.load(conv / "model.onnx"), dict(np.load(conv / "in.npz")))
    np.testing.assert_array_equal(np.load(conv / "out.npz")["output_0"], wanted)
    with tarfile.open(conv / "host.tar") as tar:
        assert set(tar.getnames()) == {"mod.so", "mod.json", "mod.params"}


def test_other_kinds_of_models_are_refused(tmp_path: Path) -> None:
    script = (
        "import tvm; from tvm import relay; from tvm.driver import tvmc\n"
        "x = relay.var('x', shape=(2,)); model = tvmc.model.TVMCModel(tvm.IRModule.from_expr(relay.abs(x)), {})\n"
        f"tvmc.compile(model, target={TARGET!r}, package_path='model.tar')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "the NPU takes models from ONNX files only" in done.stderr


def test_other_targets_are_left_alone(conv: Path) -> None:
    members = []
    for switch in ("0", "1"):
        done = tvmc("compile", "--target", HOST, "model.onnx", "-o", "model.tar", folder=conv, NPU_TVMC=switch)
        assert done.returncode == 0, done.stderr
        with tarfile.open(conv / "model.tar") as tar:
            assert len(tar.getnames()) == 3
            members.append([tar.extractfile(name).read() for name in ("mod.json", PARAMETERS)])  # type: ignore[union-attr]
    assert members[0] == members[1]


def test_switched_off(conv: Path) -> None:
    done = tvmc("compile", "--target", TARGET, "model.onnx", "-o", "model.tar", folder=conv, NPU_TVMC="0")
    assert done.returncode == MISTAKE
    assert "npu is not defined in TVMC" in done.stderr


def test_nothing_is_imported_without_tvmc() -> None:
    script = "import sys; print([name for name in ('tvm', 'numpy', 'onnx', 'npu_backend') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
