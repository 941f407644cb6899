"""The results of ONNX's suite as a Markdown document."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from benchmarks.onnx_cases import CATEGORIES, RELEASE, Case, family
from benchmarks.onnx_suite_run import (
    ENGINE,
    FAILED,
    HOST,
    MIXED,
    NOWHERE,
    NPU,
    PASSED,
    TVM,
    UNAVAILABLE,
    UNSUPPORTED,
    VECTOR,
    Result,
)  # fmt: skip
from benchmarks.provenance import host

Results = Mapping[str, Mapping[str, Result]]
STATUSES = (PASSED, FAILED, UNSUPPORTED, UNAVAILABLE)
PLACES = (ENGINE, VECTOR, MIXED, HOST, NOWHERE)
_DETAIL_CHARACTERS = 160


def exceptions(results: Results) -> list[str]:
    """The cases that TVM's own CPU build passes and the NPU's does not."""
    npu, tvm = results.get(NPU, {}), results.get(TVM, {})
    return [key for key, result in tvm.items() if result.status == PASSED and key in npu and npu[key].status != PASSED]


def document(cases: Sequence[Case], results: Results, revision: str) -> str:
    """Tables by category and by operator, what TVM passes and the NPU does not, and every failure."""
    keys = {case.key for case in cases}
    results = {side: {key: result for key, result in known.items() if key in keys} for side, known in results.items()}
    sections = [
        "# ONNX's backend suite",
        _introduction(len(cases), revision),
        "## By category",
        _table(cases, results, lambda case: case.category, CATEGORIES),
        _kept(results),
        "## By operator of the category node",
        _table(*_nodes(cases, results)),
        "## Failures",
        _failures(results.get(NPU, {}), FAILED),
        "## Not supported",
        _reasons(results.get(NPU, {})),
    ]
    return "\n\n".join(sections) + "\n"


def _introduction(count: int, revision: str) -> str:
    machine = host()
    return (
        f"`onnx.backend.test` of onnx {RELEASE}, {count} cases, by `make onnx-suite` through"
        " `tvm_ext.backend.NpuBackend`: three cores of the exynos2100, strategy `stratum`."
        f" Commit {revision}, {machine.processor}, {machine.logical_processors} logical processors, Python"
        f" {machine.python}. Tolerances, shapes and data types as the suite's runner checks them. *TVM* is its own CPU"
        " build of the same importer (`from_onnx`, `tvm.compile` for `llvm`), without this project's clean-up. *Engine*"
        " and *vector* ran on the NPU alone, *mixed* on the NPU and the host, *constant* was folded while compiling."
    )


def _nodes(
    cases: Sequence[Case], results: Results
) -> tuple[Sequence[Case], Results, Callable[[Case], str], Sequence[str]]:
    nodes = [case for case in cases if case.category == "node"]
    groups = {case.key: family(case) for case in nodes}
    return nodes, results, lambda case: groups[case.key], sorted(set(groups.values()))


def _table(cases: Sequence[Case], results: Results, group: Callable[[Case], str], groups: Sequence[str]) -> str:
    npu, tvm = results.get(NPU, {}), results.get(TVM, {})
    head = ["", "cases", "not run", *STATUSES, *PLACES, "TVM passes"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for name, members in [*((name, [case for case in cases if group(case) == name]) for name in groups),
                          ("all", list(cases))]:  # fmt: skip
        known = [npu[case.key] for case in members if case.key in npu]
        statuses = Counter(result.status for result in known)
        places = Counter(result.where for result in known if result.status == PASSED)
        passes = sum(case.key in tvm and tvm[case.key].status == PASSED for case in members)
        counts = [
            len(members),
            len(members) - len(known),
            *map(statuses.__getitem__, STATUSES),
            *map(places.__getitem__, PLACES),
            passes,
        ]
        lines.append(f"| {name} | {' | '.join(str(count or '') for count in counts)} |")
    return "\n".join(lines)


def _kept(results: Results) -> str:
    missing = exceptions(results)
    passes = sum(result.status == PASSED for result in results.get(TVM, {}).values())
    waiting = sum(result.status == PASSED and key not in results.get(NPU, {})
                  for key, result in results.get(TVM, {}).items())  # fmt: skip
    if not missing:
        rest = f", but for {waiting} that were not run here" if waiting else ""
        return f"Every one of the {passes} cases that TVM's own CPU build passes, passes here{rest}."
    listed = "\n".join(f"- {_line(results[NPU][key])}" for key in missing)
    return f"Of the {passes} cases that TVM's own CPU build passes, {len(missing)} do not pass here:\n\n{listed}"


def _failures(npu: Mapping[str, Result], status: str) -> str:
    lines = [f"- {_line(result)}" for result in npu.values() if result.status == status]
    return "\n".join(lines) or "None."


def _reasons(npu: Mapping[str, Result]) -> str:
    """Refusals are many and alike: counted by what they say."""
    counts = Counter(_plain(result.detail) for result in npu.values() if result.status == UNSUPPORTED)
    lines = [f"| {count} | {reason} |" for reason, count in counts.most_common()]
    return "\n".join(["| cases | reason |", "|---|---|", *lines])


def _plain(detail: str) -> str:
    """Without what differs from case to case: names in quotes."""
    parts = detail.split("'")
    return _cell("…".join(parts[::2]))


def _line(result: Result) -> str:
    return f"`{result.case}` ({result.status}): {result.kind}: {_cell(result.detail)}"


def _cell(text: str) -> str:
    short = text if len(text) <= _DETAIL_CHARACTERS else f"{text[:_DETAIL_CHARACTERS]}…"
    return short.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*").replace("_", "\\_")
