"""The JSON of a run keeps to its schema, and the schema is strict."""

from __future__ import annotations

import json

import jsonschema
import pytest

from npu_backend.report.document import (
    HostOperator,
    NetworkReport,
    Run,
    Verification,
    run_document,
    run_schema,
    to_json,
)
from npu_backend.report.figures import figures

NAMES = [
    "model",
    "machine",
    "cores",
    "cores_used",
    "cores_reason",
    "strategy",
    "plan",
    "cycles",
    "latency_us",
    "lower_bound_us",
    "macs",
    "macs_executed",
    "dram_bytes",
    "noc_bytes",
    "spm_peak_bytes",
    "energy_uj",
    "compile_seconds",
    "emulate_seconds",
    "synchronization",
    "per_core",
    "layers",
    "critical_path",
    "links",
    "npu_ops",
    "vector_ops",
    "host_ops",
    "verify",
]


def document(verify: Verification | None = None) -> dict[str, object]:
    run = Run(
        model="m", machine="exynos2100", cores=2, strategy="base", plan="base", figures=figures([], 2),
        npu_ops=0, vector_ops=0,
        host_ops=[HostOperator("n", "Sin", "not quantised")], compile_seconds=1.5, emulate_seconds=None, verify=verify,
        network=NetworkReport.of([]),
    )  # fmt: skip
    return run_document(run)


def test_names_are_the_contract() -> None:
    assert list(document()) == NAMES
    jsonschema.validate(json.loads(to_json(document())), run_schema())
    jsonschema.validate(
        document(Verification("onnxruntime 1.32.0", 10, 1, None, 0.5, 0.1, 0.999, 40.0, None, 1)), run_schema()
    )


@pytest.mark.parametrize("name", NAMES)
def test_schema_misses_no_name(name: str) -> None:
    broken = document()
    del broken[name]
    with pytest.raises(jsonschema.ValidationError, match=f"'{name}' is a required property"):
        jsonschema.validate(broken, run_schema())


@pytest.mark.parametrize(
    "change",
    [{"surprise": 1}, {"cycles": 1.5}, {"cycles": -1}, {"model": ""}, {"host_ops": [{"name": "n"}]}, {"per_core": []}],
)
def test_schema_refuses(change: dict[str, object]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**document(), **change}, run_schema())


def test_numbers_that_are_none_are_our_bug() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_json({"latency_us": float("nan")})
