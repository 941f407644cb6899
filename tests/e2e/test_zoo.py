"""Models that others made, whole on the NPU: int8 equal to ONNX Runtime bit for bit, floats within half precision."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

from models.exported import with_weights
from models.real import MissingModelError
from models.zoo import LIGHT, ZOO, Shapes, ZooModel, exported, light_output, write_model
from npu_backend.machine import load_machine
from npu_backend.runtime import Emulator
from tests.e2e.halves import with_halves
from tests.e2e.networks import assert_equal, program_of
from tests.exported import EXPORTED
from tvm_ext.accuracy import Accuracy
from tvm_ext.driver import FrontEnd, PackageRunner, compile_imported, import_model
from tvm_ext.onnx_runtime import run_session, session_of

HALF = (("exynos2200", 1), ("mesh16", 3), ("ring4", 4))
CODES = (("exynos2100", 1), ("exynos2100", 3), ("ring4", 4))
STRATEGY = "base"
# On every number of cores; each of the others on one, in turn.
THOROUGH = ("rapidocr_det", "rapidocr_rec", "rapidocr_cls", "minilm", "espcn_subpixel", "espcn_nn_resize")
QUICK = "espcn_subpixel"
# Cosine and largest error. A detector's sigmoid is steep: rounding every operator once already costs ONNX Runtime
# 0.99993 and 0.16 on rapidocr's (`tests.e2e.halves`).
CLOSE, CLOSE_DETECTOR = (0.9999, 0.01), (0.9998, 0.3)
ROUNDING_SLACK_DB = 2.0
# Its conditions are settled before it is compiled; the NPU has no recurrent operator, which the third spells out.
HOST_OPERATORS = {"silero_vad": {"LSTM"}, "silero_vad_16k": {"LSTM"}}


@dataclass(frozen=True)
class Prepared:
    """A model in one form: imported for machines that compute in float or not, its feed and what must come out."""

    front: FrontEnd
    feed: dict[str, np.ndarray]
    expected: dict[str, np.ndarray]


@lru_cache(maxsize=1)
def prepared(name: str, form: str, folder: Path) -> Prepared:
    return prepare(ZOO[name], form, ZOO[name].small_shapes, folder)


def prepare(entry: ZooModel, form: str, shapes: Shapes, folder: Path) -> Prepared:
    """Skips, saying what to run, when the model is absent."""
    path = folder / "model.onnx"
    try:
        write_model(entry, form, shapes, path)
    except MissingModelError as error:
        pytest.skip(str(error))
    feed = dict(entry.feed(shapes))
    front = import_model(path, shapes, computes_float=form == "float16")
    return Prepared(front, feed, run_session(session_of(str(path), "the tests"), feed))


def plans(names, machines):
    """(name, machine, cores), model by model so that a process imports each once."""
    for index, name in enumerate(names):
        for machine, cores in machines if name in THOROUGH else machines[index % 3 :][:1]:
            quick = name == QUICK and cores > 1
            yield pytest.param(name, machine, cores, id=f"{name}-{machine}-{cores}",
                               marks=() if quick else pytest.mark.slow)  # fmt: skip


def outputs_on(network: Prepared, machine: str, cores: int, *, check: bool = True) -> dict[str, np.ndarray]:
    """Of the emulator, on two threads and (`check`) with its checks; of the package where operators are on the host."""
    chosen, parts = load_machine(machine).take(cores), network.front.partitioned
    if not parts.host_ops:
        (graph,) = parts.graphs.values()
        with Emulator(program_of(graph, chosen, STRATEGY)) as emulator:
            outputs = emulator.run(network.feed, threads=2)
            if check:
                assert_equal(emulator.run(network.feed, check=True), outputs)
            # Where an Identity is the last operator, the output is called otherwise.
            return dict(zip(network.expected, outputs.values())) if len(outputs) == 1 else outputs
    compiled = compile_imported(network.front, machine=machine, cores=cores, strategy=STRATEGY,
                                compile_graph=lambda graph: program_of(graph, chosen, STRATEGY))  # fmt: skip
    with PackageRunner(compiled.package) as runner:
        return runner.run(network.feed)


def accuracy_of(wanted, got) -> Accuracy:
    accuracy = Accuracy()
    accuracy.add(wanted, got)
    return accuracy


def assert_close(outputs, expected, bounds=CLOSE):
    least_cosine, largest_error = bounds
    assert outputs.keys() == expected.keys()
    for name, wanted in expected.items():
        accuracy = accuracy_of(wanted, outputs[name])
        assert accuracy.cosine is not None, name
        assert accuracy.cosine >= least_cosine, name
        assert accuracy.max_relative <= largest_error, name
        assert accuracy.top1_agreement in (None, 1), name


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("zoo")


QUANTIZED = [name for name, entry in ZOO.items() if "int8" in entry.forms]


@pytest.mark.parametrize(("name", "machine", "cores"), [*plans(QUANTIZED, CODES)])
def test_codes_are_equal(name, machine, cores, folder):
    network = prepared(name, "int8", folder)
    assert network.front.partitioned.host_ops == ()
    assert_equal(outputs_on(network, machine, cores), network.expected)


@pytest.mark.parametrize(("name", "machine", "cores"), [*plans(ZOO, HALF)])
def test_half_precision_is_close(name, machine, cores, folder):
    network = prepared(name, "float16", folder)
    assert {op.op for op in network.front.partitioned.host_ops} == HOST_OPERATORS.get(name, set())
    # The light networks have no smaller size.
    outputs = outputs_on(network, machine, cores, check=bool(ZOO[name].small_shapes))
    assert_close(outputs, network.expected, CLOSE_DETECTOR if name.endswith("_det") else CLOSE)
    if (LIGHT / f"{name}.onnx").exists():
        ((output, _),) = outputs.items()
        assert_close(outputs, {output: light_output(name)})


EXPORTED_ORDER = [parameter.id for parameter in EXPORTED]


@pytest.mark.slow
@pytest.mark.parametrize("path", EXPORTED)
def test_exported_graphs_round_no_more_than_they_must(path, tmp_path):
    """Their random weights spread any rounding: the bound is what rounding every operator once costs ONNX Runtime."""
    network = prepare(exported(path), "float16", {}, tmp_path)
    assert network.front.partitioned.host_ops == ()
    machine, cores = HALF[EXPORTED_ORDER.index(path.stem) % 3]
    outputs = outputs_on(network, machine, cores, check=False)
    halves = run_session(session_of(with_halves(with_weights(path)).SerializeToString(), "the tests"), network.feed)
    for name, wanted in network.expected.items():
        ours, least = accuracy_of(wanted, outputs[name]), accuracy_of(wanted, halves[name])
        assert ours.sqnr_db >= least.sqnr_db - ROUNDING_SLACK_DB
        assert ours.max_abs <= 2 * least.max_abs


@pytest.mark.slow
def test_batch_of_sentences(folder):
    """A batch larger than one, and its sentences in another order."""
    network = prepared("minilm", "float16", folder)
    rows = outputs_on(network, "mesh16", 4, check=False)["sentence_embedding"]
    assert len(rows) > 1
    turned = replace(network, feed={name: value[::-1].copy() for name, value in network.feed.items()})
    assert_equal(outputs_on(turned, "mesh16", 4, check=False), {"sentence_embedding": rows[::-1]})
