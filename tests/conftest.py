"""Golden files, one reproducible profile for generated tests, and which cases of large tables run in `make check`."""

from __future__ import annotations

import difflib
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings

from tvm_ext.generation import RELAY, generation

# Relay and tvmc are tested by `make test-relay`, in an environment of their own.
collect_ignore = [] if generation() == RELAY else ["relay", "tvmc"]
GOLDEN = Path(__file__).parent / "golden"
DIFF_LINES = 80
# So many cases of a test run in `make check`, spread over its table; `make test` runs all.
FAST_CASES = 10
GOLDEN_RATIO = 0.6180339887498949
_FRACTION = re.compile(r"\b\d+\.\d+(?:e-?\d+)?\b")

# The same examples on every machine, and no deadline: a loaded machine is not a bug.
settings.register_profile("reproducible", deadline=None, derandomize=True, print_blob=False)
settings.load_profile("reproducible")


@dataclass(frozen=True)
class Golden:
    """The golden files of one test: ``tests/golden/<test file stem>/<test name>[.<part>].txt``."""

    stem: Path
    update: bool

    def check(self, text: str, part: str = "", *, digits: int | None = None) -> None:
        """Fails unless ``text`` equals the golden file; ``part`` tells several files of one test apart.

        ``digits``: how many of a decimal fraction count, for numbers that another release computes in another order.
        """
        path = self.stem.with_name(f"{self.stem.name}{'.' + part if part else ''}.txt")
        actual = text.rstrip("\n") + "\n"
        if self.update:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(actual.encode())
            return
        shown = path.relative_to(GOLDEN.parent.parent)
        if not path.exists():
            pytest.fail(f"no golden file {shown}: write it with --update-golden and review it", pytrace=False)
        expected = path.read_bytes().decode()
        if _rounded(actual, digits) != _rounded(expected, digits):
            pytest.fail(_difference(expected, actual, str(shown)), pytrace=False)


def _rounded(text: str, digits: int | None) -> str:
    return text if digits is None else _FRACTION.sub(lambda match: f"{float(match[0]):.{digits}g}", text)


def _difference(expected: str, actual: str, name: str) -> str:
    lines = list(difflib.unified_diff(expected.splitlines(), actual.splitlines(), name, "this run", lineterm=""))
    left_out = [f"... {len(lines) - DIFF_LINES} more lines"] if len(lines) > DIFF_LINES else []
    head = f"differs from {name}; if that is right, rewrite it with --update-golden"
    return "\n".join([head, *lines[:DIFF_LINES], *left_out])


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite golden files; runs only tests that have any")


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    _mark_most_cases_slow(items)
    if not config.getoption("--update-golden"):
        return
    kept = [item for item in items if "golden" in getattr(item, "fixturenames", ())]
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = kept


def _mark_most_cases_slow(items: list[pytest.Item]) -> None:
    """Marks slow all but FAST_CASES of the cases of every test.

    Multiples of the golden ratio spread evenly without a period, so no parameter of a product stays the same.
    """
    tests: defaultdict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        tests[item.nodeid.partition("[")[0]].append(item)
    for cases in tests.values():
        for index, item in enumerate(cases):
            if index * GOLDEN_RATIO % 1 >= FAST_CASES / len(cases):
                item.add_marker("slow")


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Golden:
    """The golden files of the requesting test."""
    name = re.sub(r"[^\w.-]+", "-", request.node.name).strip("-")
    return Golden(GOLDEN / request.path.stem / name, request.config.getoption("--update-golden"))
