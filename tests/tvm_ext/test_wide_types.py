"""float64, uint32 and uint64: no engine computes with them, so kernels do, on the vector processors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime
import pytest

from npu_backend.isa import COMPUTED_TYPES, DATA_TYPES
from tests.tvm_ext.one_node import feed_of, one_node
from tvm_ext.backend import NpuBackend, Target
from tvm_ext.driver import front_end_options, import_loaded

RNG = np.random.default_rng(0)
REAL = RNG.normal(size=(3, 40))
WORDS = RNG.integers(0, 2**32, (3, 40), np.uint32)
LONG = RNG.integers(0, 2**64, (3, 40), np.uint64)
CASES: dict[str, tuple[str, Sequence[np.ndarray], dict[str, Any]]] = {
    "add": ("Add", (REAL, REAL[::-1].copy()), {}),
    "exp": ("Exp", (REAL,), {}),
    "product": ("MatMul", (REAL, REAL.T.copy()), {}),
    "turned": ("Transpose", (REAL,), {"perm": [1, 0]}),
    "wraps": ("Mul", (WORDS, WORDS[::-1].copy()), {}),
    "bits": ("BitwiseAnd", (LONG, LONG[::-1].copy()), {}),
    "position": ("ArgMax", (REAL,), {"axis": 1}),
    "to_float": ("Cast", (REAL,), {"to": 1}),
}


def test_the_wide_types() -> None:
    assert set(DATA_TYPES) - set(COMPUTED_TYPES) == {"float64", "uint32", "uint64"}


@pytest.mark.parametrize("name", CASES)
def test_kernels_compute_with_them(name: str) -> None:
    op_type, operands, attributes = CASES[name]
    model, target = one_node(op_type, operands, **attributes), Target.named()
    imported = import_loaded(lambda: model, **front_end_options(target.machine))
    assert not imported.partitioned.host_ops
    assert {op.kind for graph in imported.partitioned.graphs.values() for op in graph.ops} == {"kernel"}
    feed = feed_of(model, operands)
    (expected,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, feed)
    (result,) = NpuBackend.prepare(model).run(list(feed.values()))
    assert result.dtype == expected.dtype
    np.testing.assert_allclose(result, expected, rtol=1e-12 if result.dtype == np.float64 else 0)
