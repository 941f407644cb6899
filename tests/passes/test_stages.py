"""The text of every stage of a small network on two cores: a change of any pass shows here first."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from npu_backend.pipeline import STAGES
from npu_backend.report.stages import stage_text
from tests.conftest import Golden
from tests.passes.networks import block, machine, stages


@cache
def compiled() -> dict[str, Any]:
    return stages(block(), machine(spm_bytes=1 << 14))


@pytest.mark.parametrize("stage", STAGES)
def test_stage_text(stage: str, golden: Golden) -> None:
    golden.check(stage_text(compiled()[stage]))


def test_stages_come_in_the_order_of_the_pipeline() -> None:
    assert tuple(compiled()) == STAGES
