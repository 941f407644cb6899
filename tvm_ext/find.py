"""Which operators of an imported model the NPU takes, and for every other one the reason why not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

import onnx

from npu_backend.graph import CODES, FLOATS
from tvm_ext.before_codes import before_codes
from tvm_ext.candidates import Candidate, coding, fits_form, kernel, needs_float, plain, quantized
from tvm_ext.matching import CODING, Match, Program, first_refusal
from tvm_ext.nodes import COMMON, ENTRIES
from tvm_ext.onnx_origin import origins
from tvm_ext.package import HostOp
from tvm_ext.values import Variable

Search = Callable[[Program, Variable], Iterator[Candidate]]


@dataclass(frozen=True)
class Findings:
    """Matches in program order, and the operators left to the host."""

    found: tuple[Candidate, ...]
    host_ops: tuple[HostOp, ...]


def find_matches(program: Program) -> Findings:
    """Quantised operators first, which take in what stands between their codes; then floats; coding at the border."""
    finder = _Finder(program)
    for variable in program.calls:
        if program.is_quantize(variable):
            finder.search(variable, quantized)
        elif variable.dtype in CODES:
            finder.search(variable, plain)
    finder.search_before_codes()
    for variable in program.calls:
        finder.search(variable, plain)
    finder.search_kernels(coded=False)
    inner = frozenset(finder.found)
    for variable in program.calls:
        if finder.touches(variable, inner):
            finder.search(variable, coding)
    finder.search_kernels(coded=True)
    found = tuple(finder.found[variable] for variable in program.calls if variable in finder.found)
    return Findings(found, tuple(dict.fromkeys(finder.host_ops())))


@dataclass
class _Finder:
    program: Program
    found: dict[Variable, Candidate] = field(default_factory=dict)
    refusals: dict[str, str] = field(default_factory=dict)
    taken: set[Variable] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.dependent = _dependent_on_input(self.program)

    def search(self, variable: Variable, search: Search) -> None:
        """Takes the first candidate that keeps its rules; remembers why the first refused did not."""
        floats = self.program.computes_float or search is coding
        candidate = self._first(variable, search, floats=floats)
        if candidate is not None:
            self._take(variable, candidate)

    def search_before_codes(self) -> None:
        """Takes the float operators that end in codes."""
        candidates: dict[Variable, Candidate] = {}
        inside: set[Variable] = set()
        for search in (quantized, plain):
            for variable in self.program.calls:
                is_quantize = self.program.is_quantize(variable)
                if variable in inside or is_quantize != (search is quantized):
                    continue
                candidate = self._first(variable, search, floats=True)
                if candidate is not None:
                    candidates[variable] = candidate
                    inside.update(candidate.match.inside)
        for variable, candidate in before_codes(self.program, candidates, frozenset(self.taken)).items():
            self._take(variable, Candidate(replace(candidate.match, before_codes=True), candidate.entry))

    def search_kernels(self, *, coded: bool) -> None:
        """Gives what the engines refuse to the vector processors; quantise and dequantise calls only if `coded`."""
        for variable in self.program.calls:
            source = self.program.sources.get(variable)
            if source is None or (source.node.op_type in CODING) != coded or not self._is_live(variable):
                continue
            for candidate in kernel(self.program, variable) if variable not in self.taken else ():
                if not self._reads_vanished(candidate.match):
                    self._take(variable, candidate)

    def _take(self, variable: Variable, candidate: Candidate) -> None:
        self.found[variable] = candidate
        self.taken.update((*candidate.match.inside, candidate.match.root))

    def _first(self, variable: Variable, search: Search, *, floats: bool) -> Candidate | None:
        """The first candidate that keeps its rules; `floats`: it may read and leave them."""
        if variable in self.taken:
            return None
        for candidate in search(self.program, variable):
            match, entry = candidate
            if not fits_form(candidate) or (needs_float(match) and not floats) or self._reads_vanished(match):
                continue
            reason = self._escape(match) or first_refusal(match, (*COMMON, *entry.rules))
            if reason is None:
                return candidate
            for node in match.nodes:
                self.refusals.setdefault(node.name, reason)
        return None

    def _reads_vanished(self, match: Match) -> bool:
        return any(variable in self.taken and variable not in self.found for variable in match.inputs)

    def touches(self, variable: Variable, inner: frozenset[Variable]) -> bool:
        """Whether an operator of the NPU reads the variable or writes what it reads."""
        reads = self.program.calls[variable].reads
        return any(v in inner for v in reads) or any(
            reader in self.taken for reader in self.program.readers.get(variable, ())
        )

    def host_ops(self) -> Iterator[HostOp]:
        """Every operator outside the matches that depends on the model's inputs and has a reader."""
        seen: set[str] = set()
        for variable in self.program.calls:
            source = self.program.sources.get(variable)
            if source is None or variable in self.taken or source.node.name in seen or not self._is_live(variable):
                continue
            seen.add(source.node.name)
            reason = self._reason(variable, source.node) + self._kernel_reason(source.node)
            yield from (HostOp(name, op_type, reason) for name, op_type in origins(source.node))

    def _escape(self, match: Match) -> str | None:
        inner = {*match.inside, match.root}
        for variable in match.inside:
            outside = [v for v in self.program.readers.get(variable, ()) if v not in inner]
            if outside or variable in self.program.outputs:
                return f"not quantised: its float result also goes to {self._reader_name(outside)}"
        return None

    def _kernel_reason(self, node: onnx.NodeProto) -> str:
        plan = None if self.program.kernels is None else self.program.kernels.plan(node)
        return f"; no kernel either: {plan}" if isinstance(plan, str) else ""

    def _reason(self, variable: Variable, node: onnx.NodeProto) -> str:
        if node.name in self.refusals:
            return self.refusals[node.name]
        if node.op_type in CODING:
            return "the operators around it run on the host"
        if node.op_type not in ENTRIES:
            return f"the NPU has no {node.op_type}"
        for name in filter(None, node.input):
            read = self.program.operand(name)
            if read is not None and read.variable and read.dequantize is None and read.dtype in FLOATS:
                return f"not quantised: it reads {read.dtype} from {self._name_of(read.variable)}"
        users = self.program.readers.get(variable, ())
        floating = [user for user in users if not self.program.is_quantize(user)]
        if floating or not users:
            return f"not quantised: its float result goes to {self._reader_name(floating)}"
        return f"the NPU has no {node.op_type} of this form"

    def _name_of(self, variable: Variable) -> str:
        if variable in self.program.sources:
            return self.program.sources[variable].node.name
        return f"the model's input {variable.name!r}"

    def _reader_name(self, variables: Iterable[Variable]) -> str:
        """The ONNX node that one of the variables belongs to; without any, the result leaves the model."""
        for variable in variables:
            current = variable
            while current not in self.program.sources and self.program.readers.get(current):
                current = self.program.readers[current][0]
            if current in self.program.sources:
                return self.program.sources[current].node.name
        return "the model's output"

    def _is_live(self, variable: Variable) -> bool:
        used = variable in self.program.outputs or bool(self.program.readers.get(variable))
        return used and variable in self.dependent


def _dependent_on_input(program: Program) -> frozenset[Variable]:
    dependent: set[Variable] = set()
    for variable in program.calls:
        reads = list(program.calls[variable].reads)
        dependent.update(read for read in reads if read not in program.calls)
        if not dependent.isdisjoint(reads):
            dependent.add(variable)
    return frozenset(dependent)
