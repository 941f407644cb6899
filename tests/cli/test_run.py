"""``npuc run`` and ``npuc compile`` on a tiny model: what is printed, written and returned."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from npu_backend.report.document import run_schema
from tests.cli.tiny import INPUT_SHAPE, OUTPUT_SCALE, OUTPUT_SHAPE, npuc, save, tiny_model
from tvm_ext.cli import verify as verification
from tvm_ext.driver import PackageRunner

Capture = pytest.CaptureFixture[str]


def checked_json(path: Path) -> dict[str, object]:
    document: dict[str, object] = json.loads(path.read_text())
    jsonschema.validate(document, run_schema())
    return document


def test_schema_is_valid_and_strict() -> None:
    schema = run_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    assert {*schema["required"], "quantization"} == set(schema["properties"])


def test_run_prints_figures_and_verifies(tiny: Path, tmp_path: Path, capsys: Capture) -> None:
    result = npuc(capsys, "run", tiny, "--verify", "--print-time", "--json", tmp_path / "run.json")
    assert result.code == 0, result.err
    assert result.err == ""
    for text in ("latency", "lower bound", "utilisation", "traffic", "x one core's", "0 on the host", "compile "):
        assert text in result.out
    assert "all 1,024 elements equal" in result.out


def test_json_keeps_the_contract(tiny: Path, tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "run.json"
    assert npuc(capsys, "run", tiny, "--verify", "-q", "--cores", 2, "--json", path) == (0, "", "")
    document = checked_json(path)
    assert document["model"] == "tiny"
    assert (document["machine"], document["cores"], document["strategy"]) == ("exynos2100", 2, "stratum")
    assert document["macs"] == document["macs_executed"] == 64 * (8 * 27 + 16 * 8)
    assert sum(layer["cycles"] for layer in document["layers"]) == document["cycles"]  # type: ignore[attr-defined]
    assert sum(core["dram_bytes"] for core in document["per_core"]) == document["dram_bytes"]  # type: ignore[attr-defined]
    assert document["latency_us"] > document["lower_bound_us"] > 0  # type: ignore[operator]
    verify = document["verify"]
    assert (verify["elements"], verify["mismatches"], verify["max_lsb"]) == (1024, 0, 0)  # type: ignore[index]


def test_timing_only(tiny: Path, tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "run.json"
    assert npuc(capsys, "run", tiny, "--timing-only", "-q", "--json", path).code == 0
    document = checked_json(path)
    assert document["emulate_seconds"] is None
    assert document["verify"] is None
    assert document["cycles"] > 0  # type: ignore[operator]


def test_package_has_the_figures_of_the_model(tiny: Path, package: Path, tmp_path: Path, capsys: Capture) -> None:
    for name, source in (("model", [tiny, "--cores", 2, "--strategy", "base"]), ("package", [package])):
        assert npuc(capsys, "run", *source, "-q", "--json", tmp_path / f"{name}.json").code == 0
    documents = [checked_json(tmp_path / f"{name}.json") for name in ("model", "package")]
    for document in documents:
        del document["compile_seconds"], document["emulate_seconds"]
    assert documents[0] == documents[1]


def test_inputs_and_outputs(package: Path, tmp_path: Path, capsys: Capture) -> None:
    image = np.linspace(-2, 2, int(np.prod(INPUT_SHAPE)), dtype=np.float32).reshape(INPUT_SHAPE)
    np.savez(tmp_path / "in.npz", image=image)
    results = []
    for threads in (1, 2):
        path = tmp_path / f"out{threads}.npz"
        code, _, err = npuc(capsys, "run", package, "-q", "--inputs", tmp_path / "in.npz", "--outputs", path,
                            "--threads", threads)  # fmt: skip
        assert code == 0, err
        results.append(np.load(path)["features"])
    assert results[0].shape == OUTPUT_SHAPE
    assert len(np.unique(results[0])) > 10
    assert np.array_equal(*results)
    assert np.array_equal(results[0] / OUTPUT_SCALE, np.rint(results[0] / OUTPUT_SCALE))


@pytest.mark.parametrize(("mode", "value"), [("zeros", 0), ("ones", 1)])
def test_fill_mode(package: Path, tmp_path: Path, capsys: Capture, mode: str, value: int) -> None:
    np.savez(tmp_path / "in.npz", image=np.full(INPUT_SHAPE, value, np.float32))
    made, given = tmp_path / "made.npz", tmp_path / "given.npz"
    assert npuc(capsys, "run", package, "-q", "--fill-mode", mode, "--outputs", made).code == 0
    assert npuc(capsys, "run", package, "-q", "--inputs", tmp_path / "in.npz", "--outputs", given).code == 0
    assert np.array_equal(np.load(made)["features"], np.load(given)["features"])


def test_check_passes(package: Path, capsys: Capture) -> None:
    result = npuc(capsys, "run", package, "--check")
    assert result.code == 0
    assert "checked: no race" in result.out


def test_failed_check_is_code_1(package: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    def trap(*_: object) -> None:
        raise RuntimeError("npu_0: core 1 load 0x10 LOAD (node c0): race")

    monkeypatch.setattr(PackageRunner, "run", trap)
    result = npuc(capsys, "run", package, "--check")
    assert (result.code, result.out) == (1, "")
    assert result.err == "Error: --check: npu_0: core 1 load 0x10 LOAD (node c0): race\n"


def test_failed_verify_is_code_1(tiny: Path, package: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    run = PackageRunner.run

    def one_step_off(self: PackageRunner, *arguments: object) -> dict[str, np.ndarray]:
        outputs = run(self, *arguments)  # type: ignore[arg-type]
        outputs = {name: value.copy() for name, value in outputs.items()}
        outputs["features"].reshape(-1)[3] += OUTPUT_SCALE
        return outputs

    monkeypatch.setattr(PackageRunner, "run", one_step_off)
    verify = ("run", package, "--verify", "--reference", tiny)
    result = npuc(capsys, *verify)
    assert result.code == 1
    assert "1 of 1,024 elements differ, at most by 0.125 (steps of the output's codes: 1, " in result.err
    assert npuc(capsys, *verify, "--tolerance-lsb", 1).code == 0


def test_other_model_is_no_reference(package: Path, tmp_path: Path, capsys: Capture) -> None:
    other = tiny_model()
    other.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 18
    other.graph.output[0].type.tensor_type.shape.dim[2].dim_value = 9
    result = npuc(capsys, "run", package, "--verify", "--reference", save(other, tmp_path / "other.onnx"))
    assert result.code == 2
    assert "nothing to verify against" in result.err


def test_host_operators_are_named(tmp_path: Path, capsys: Capture) -> None:
    model = save(tiny_model(tail="Sin"), tmp_path / "sine.onnx")
    path = tmp_path / "run.json"
    result = npuc(capsys, "run", model, "--verify", "--json", path, "--no-baseline", "--no-kernels")
    # A sine in float: ONNX Runtime's and TVM's differ in the last bits.
    assert result.code == 0, result.err
    assert "host: Sin features_Sin: " in result.out
    (host_op,) = checked_json(path)["host_ops"]  # type: ignore[misc]
    assert (host_op["name"], host_op["op"]) == ("features_Sin", "Sin")
    assert host_op["reason"]


def test_kernels_of_the_vector_processors(tmp_path: Path, capsys: Capture) -> None:
    model = save(tiny_model(tail="Trilu"), tmp_path / "trilu.onnx")
    path = tmp_path / "run.json"
    result = npuc(capsys, "run", model, "--verify", "--check", "--json", path, "--no-baseline")
    assert result.code == 0, result.err
    assert "(1 by kernels of the vector processors), 0 on the host" in result.out
    document = checked_json(path)
    assert (document["vector_ops"], document["host_ops"]) == (1, [])


@pytest.mark.parametrize(("error", "failures"), [(1e-5, 0), (1e-2, 2)])
def test_float_rounding_of_the_host(error: float, failures: int) -> None:
    expected = {"y": np.array([1.0, -50.0, 100.0], np.float32)}
    outputs = {"y": expected["y"] + np.array([0, 100 * error, 100 * error], np.float32)}
    tail = verification.Tolerance(relative=verification.FLOAT_ROUNDING)
    found = verification.compare("r", outputs, expected, {}, tail)
    assert (found.mismatches, found.failures) == (2, failures)
    assert verification.compare("r", outputs, expected, {}, TIGHT).failures == 2
    assert verification.compare("r", outputs, expected, {"y": 0.1}, tail).failures == 2


def test_float_arithmetic_of_the_npu() -> None:
    """Both bounds count: every single error, and all of them together."""
    generator = np.random.default_rng(0)
    expected = {"y": generator.normal(size=1000).astype(np.float32)}
    half = verification.Tolerance(relative=0.01, peak=10)
    rounded = {"y": expected["y"].astype(np.float16).astype(np.float32)}
    found = verification.compare("r", rounded, expected, {}, half)
    assert found.failures == 0 < found.mismatches
    assert found.max_relative is not None
    assert found.max_relative < 2**-11
    assert found.sqnr_db is not None
    assert found.sqnr_db > 60
    assert found.cosine == pytest.approx(1, abs=1e-6)
    spike = expected["y"].copy()
    spike[7] += 0.11 * np.abs(spike).max()
    assert verification.compare("r", {"y": spike}, expected, {}, half).failures == 1
    noisy = expected["y"] + np.float32(0.02)
    assert verification.compare("r", {"y": noisy}, expected, {}, half).failures == 1000
    nothing = {"y": np.zeros(4, np.float32)}
    assert verification.compare("r", {"y": nothing["y"] + 1}, nothing, {}, half).failures == 4


def test_codes_and_indices_behind_float_arithmetic() -> None:
    codes = {"y": np.array([0.0, 0.5, 1.0, 50.0], np.float32)}
    off = {"y": codes["y"] + np.array([0, 0.5, 0, 0], np.float32)}
    strict, half = verification.Tolerance(relative=0.01), verification.Tolerance(relative=0.01, codes_too=True)
    assert verification.compare("r", off, codes, {"y": 0.5}, strict).failures == 1
    assert verification.compare("r", off, codes, {"y": 0.5}, half).failures == 0
    indices = {"i": np.arange(200)}
    for wrong, failures in ((2, 0), (3, 3)):
        other = {"i": np.where(indices["i"] < wrong, -1, indices["i"])}
        assert verification.compare("r", other, indices, {}, half).failures == failures
        assert verification.compare("r", other, indices, {}, TIGHT).failures == wrong


def test_scores_say_whether_the_best_agrees() -> None:
    scores = np.array([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]], np.float32)
    other = np.array([[0.3, 0.5, 0.2], [0.1, 0.1, 0.8]], np.float32)
    for shape in ((2, 3), (2, 3, 1, 1), (1, 2, 3)):
        found = verification.compare("r", {"y": other.reshape(shape)}, {"y": scores.reshape(shape)}, {}, TIGHT)
        assert found.top1_agreement == 0.5
    rows = {"y": 2 * scores[None]}
    assert verification.compare("r", rows, rows, {}, TIGHT).top1_agreement is None


def test_dynamic_shape(tmp_path: Path, capsys: Capture) -> None:
    model = save(tiny_model("batch"), tmp_path / "dynamic.onnx")
    assert npuc(capsys, "run", model, "-q", "--timing-only", "--shapes", "image:[1,3,16,16]").code == 0


def test_target_and_machine_file(tiny: Path, tmp_path: Path, capsys: Capture) -> None:
    from npu_backend import machine

    own = tmp_path / "mine.toml"
    shipped = Path(machine.__file__).parent / "machines" / "ring4.toml"
    own.write_text(shipped.read_text().replace('name = "ring4"', 'name = "mine"', 1))
    path = tmp_path / "run.json"
    target = f"npu -machine={own} -cores=3 -strategy=spatial -spm-bytes=131072, llvm"
    assert npuc(capsys, "run", tiny, "-q", "--timing-only", "--target", target, "--cores", 3, "--json", path).code == 0
    document = checked_json(path)
    assert (document["machine"], document["cores"], document["strategy"]) == ("mine", 3, "spatial")


def test_verbose_shows_every_layer(tiny: Path, capsys: Capture) -> None:
    result = npuc(capsys, "run", tiny, "-v", "--timing-only", "--no-baseline")
    assert result.code == 0
    assert "npuc: import" in result.err
    assert "c0_Conv" in result.out
    assert "c1_Conv" in result.out


def test_path_and_links_of_a_run(tiny: Path, tmp_path: Path, capsys: Capture) -> None:
    path, options = tmp_path / "run.json", ("--machine", "ring4", "--timing-only", "--no-baseline")
    result = npuc(capsys, "run", tiny, "-v", *options, "--json", path)
    assert result.code == 0
    for text in ("critical path", "most in layers", "busiest links", "memory0", " port "):
        assert text in result.out
    document: Any = checked_json(path)
    way, layers = document["critical_path"], document["layers"]
    assert way["total_us"] == document["latency_us"]
    assert sum(way["by_kind"].values()) == pytest.approx(way["total_us"])
    assert sum(way["by_layer"]) == pytest.approx(way["total_us"])
    assert len(way["by_layer"]) == len(layers)
    assert all(0 <= segment["layer"] < len(layers) for segment in way["segments"])
    uses = [link["utilization"] for link in document["links"]]
    assert uses == sorted(uses, reverse=True)
    assert 0 < uses[0] <= 1
    assert (document["cores_used"], document["cores"]) == (4, 4)
    quick = npuc(capsys, "run", tiny, *options)
    assert "critical path" not in quick.out


def test_compile_dumps_code(tiny: Path, tmp_path: Path, capsys: Capture) -> None:
    package = tmp_path / "tiny.tar"
    result = npuc(capsys, "compile", tiny, "-o", package, "--dump-code")
    assert result.code == 0
    assert "ONNX nodes on the NPU" in result.out
    assert " CONV " in (tmp_path / "tiny.tar.asm").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny.tar", "tiny.tar.asm"]


TIGHT = verification.Tolerance()


def test_compare() -> None:
    expected = {"y": np.array([0.0, 0.5, np.nan, 1.0], np.float32), "codes": np.array([1, 255], np.uint8)}
    same = verification.compare("r", expected, expected, {}, TIGHT)
    assert (same.elements, same.mismatches, same.max_lsb, same.max_abs) == (6, 0, 0, 0)
    outputs = {"y": np.array([0.0, 1.0, np.nan, 1.0], np.float32), "codes": np.array([1, 0], np.uint8)}
    known = verification.compare("r", outputs, expected, {"y": 0.25}, TIGHT)
    assert (known.mismatches, known.max_lsb, known.max_abs, known.failures) == (2, 255, 255, 2)
    assert verification.compare("r", outputs, expected, {}, TIGHT).max_lsb is None
    infinite = {**outputs, "y": np.array([np.inf, 0.5, 0, 1], np.float32)}
    assert verification.compare("r", infinite, expected, {"y": 1.0}, TIGHT).max_abs is None
    assert verification.compare("r", infinite, expected, {"y": 1.0}, verification.Tolerance(300)).failures == 2
    assert verification.output_steps(tiny_model()) == {"features": OUTPUT_SCALE}
