"""The same model gives the same NPU graph and the same program bytes through both generations of TVM."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import helper

from models.quantize import build_quantized
from tests.relay.programs import HOST, KERNELS, MACHINES
from tests.tvm_ext.node_cases import CASES, is_coded
from tests.tvm_ext.small_models import BUILDERS, by_hand, quantized_small
from tvm_ext.generation import RELAX

ROOT = Path(__file__).parents[2]
RELAX_PYTHON = "NPU_RELAX_PYTHON"
SMALL = [f"quantized-{name}" for name in BUILDERS]
FLOAT = [f"float-{case}" for case in CASES]
CODES = [f"codes-{case}" for case in CASES if is_coded(case)]
NETWORKS = ["mobilenet_v2"]
BY_HAND = ["read_in_another_order"]
MADE = ("programs", "npu", "host", "graphs")


def read_in_another_order() -> onnx.ModelProto:
    """Of what the NPU leaves, the host reads the second; the first is an output of the model."""
    nodes = [
        helper.make_node("Relu", ["x"], ["both"], "relu"),
        helper.make_node("Tanh", ["both"], ["left"], "tanh"),
        helper.make_node("Sigmoid", ["both"], ["inner"], "sigmoid"),
        helper.make_node("CumSum", ["inner", "axis"], ["right"], "cumsum"),
    ]
    x, *outputs = (
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [4, 8]) for name in ("x", "left", "right")
    )
    axis = helper.make_tensor("axis", onnx.TensorProto.INT64, [], [1])
    graph = helper.make_graph(nodes, "read_in_another_order", [x], outputs, [axis])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every model, in files that both generations read."""
    folder = tmp_path_factory.mktemp("models")
    models = {f"quantized-{name}": quantized_small(name) for name in BUILDERS}
    models |= {f"float-{case}": case.model() for case in CASES}
    models |= {f"codes-{case}": by_hand(case.model(), "uint8") for case in CASES if is_coded(case)}
    models |= {"read_in_another_order": read_in_another_order()}
    models |= {name: build_quantized(name, 96, images=1) for name in NETWORKS}
    for name, model in models.items():
        onnx.save(model, folder / f"{name}.onnx")
    return folder


def made_by(python: str, folder: Path) -> dict[str, Any]:
    """What a generation makes of the models, told by its own Python."""
    done = subprocess.run([python, "-m", "tests.relay.programs", str(folder)], cwd=ROOT, capture_output=True, text=True,
                          check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def made(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """By Relay, and by Relax, whose Python the environment names."""
    if RELAX_PYTHON not in os.environ:
        pytest.fail(f"name the Python of the environment with Relax in {RELAX_PYTHON}: `make test-relay` does",
                    pytrace=False)  # fmt: skip
    asked = [os.environ[RELAX_PYTHON], "-c", "import tvm_ext.generation as g; print(g.generation())"]
    assert subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip() == RELAX
    return made_by(sys.executable, folder), made_by(os.environ[RELAX_PYTHON], folder)


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("name", [*SMALL, *FLOAT, *CODES, *NETWORKS, *BY_HAND])
def test_equal(made: tuple[dict[str, Any], dict[str, Any]], name: str, machine: str) -> None:
    relay, relax = (each[name][machine] for each in made)
    assert "error" not in relay, relay["error"]
    assert {part: relay[part] for part in MADE} == {part: relax[part] for part in MADE}


@pytest.mark.parametrize("name", FLOAT)
def test_kernels_take_the_same_operators(made: tuple[dict[str, Any], dict[str, Any]], name: str) -> None:
    """TVM has no one way to lower an operator: what Relay alone can lower may run on the NPU there."""
    relay, relax = (each[name][KERNELS] for each in made)
    assert "error" not in relay, relay["error"]
    assert relay.keys() == relax.keys()
    assert all(relay[node] == where or where == HOST for node, where in relax.items())
