"""Which operators of an imported model the NPU takes, and for every other one the reason why not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx
import tvm
from tvm import relax
from tvm.relax.dpl import DFPattern

from tvm_ext.matching import EIGHT_BIT, Match, Program, dtype_of, first_refusal, is_call, variables_in
from tvm_ext.package import HostOp
from tvm_ext.patterns import Entry, coding_entries, concatenation, entries, known_operators

_CODING = ("QuantizeLinear", "DequantizeLinear")
# How far behind a quantise call the main call may be: activation, bias, product.
_CHAIN = 4


@dataclass(frozen=True)
class Found:
    """A match and the entry whose converter makes the operator of it."""

    match: Match
    entry: Entry


@dataclass(frozen=True)
class Findings:
    """Matches in program order, and the operators left to the host."""

    found: tuple[Found, ...]
    host_ops: tuple[HostOp, ...]


def find_matches(program: Program) -> Findings:
    """Tries every entry at every variable; coding at the border of a match only."""
    variables = program.order
    finder = _Finder(program, {variable: index for index, variable in enumerate(variables)}, {}, {})
    for variable in variables:
        finder.try_entries(variable, _candidates(program, variable))
    inner = frozenset(finder.found)
    for variable in variables:
        if variable not in finder.taken and finder.touches(variable, inner):
            finder.try_entries(variable, coding_entries())
    found = tuple(finder.found[variable] for variable in variables if variable in finder.found)
    return Findings(found, tuple(finder.host_ops(variables)))


@dataclass
class _Finder:
    program: Program
    order: dict[relax.Var, int]
    found: dict[relax.Var, Found]
    refusals: dict[str, str]

    def __post_init__(self) -> None:
        self.taken: set[relax.Var] = set()
        self.dependent = _dependent_on_input(self.program, self.order)

    def try_entries(self, variable: relax.Var, candidates: Sequence[Entry]) -> None:
        """Takes the first candidate that matches and keeps its rules; remembers why the first refused did not."""
        for entry in candidates:
            match = self._match(variable, entry)
            if match is None:
                continue
            reason = self._escape(match) or first_refusal(match, entry.rules)
            if reason is None:
                self.found[variable] = Found(match, entry)
                self.taken.update((*match.inside, match.root))
                return
            for node in match.origin:
                self.refusals.setdefault(node.name, reason)

    def touches(self, variable: relax.Var, inner: frozenset[relax.Var]) -> bool:
        """Whether an operator of the NPU reads the variable or writes what it reads."""
        reads = variables_in(self.program.values[variable])
        return any(v in inner for v in reads) or any(
            reader in self.taken for reader in self.program.readers.get(variable, ())
        )

    def host_ops(self, variables: Sequence[relax.Var]) -> Iterator[HostOp]:
        """Every operator outside the matches that depends on the model's inputs and has a reader."""
        seen: set[str] = set()
        for variable in variables:
            source = self.program.sources.get(variable)
            if source is None or variable in self.taken or source.node.name in seen or not self._is_live(variable):
                continue
            seen.add(source.node.name)
            yield HostOp(source.node.name, source.node.op_type, self._reason(variable, source.node))

    def _match(self, variable: relax.Var, entry: Entry) -> Match | None:
        program = self.program
        matched = entry.pattern.extract_matched_expr(program.values[variable], program.values)
        if matched is None:
            return None
        operands = _operands(program, matched, entry)
        inputs = tuple(operand for operand in operands if isinstance(operand, relax.Var))
        if not inputs or (len(inputs) < len(operands) and not entry.takes_constants):
            inside = self._inside(variable, frozenset(inputs))
            for node in self._origin((*inside, variable)):
                self.refusals.setdefault(node.name, "One of its operands is a constant; the NPU takes computed tensors")
            return None
        if entry.on_codes and entry not in coding_entries() and dtype_of(inputs[0]) not in EIGHT_BIT:
            return None
        parts = {name: matched[part] for name, part in entry.parts.items() if part in matched}
        inside = self._inside(variable, frozenset(inputs))
        match = Match(program, variable, parts, operands, inside, self._origin((*inside, variable)))
        return match if entry.applies(match) else None

    def _inside(self, root: relax.Var, inputs: frozenset[relax.Var]) -> tuple[relax.Var, ...]:
        inside, waiting = set(), [root]
        while waiting:
            for read in variables_in(self.program.values[waiting.pop()]):
                if read not in inputs and read not in inside and read in self.program.values:
                    inside.add(read)
                    waiting.append(read)
        return tuple(sorted(inside, key=self.order.__getitem__))

    def _origin(self, variables: Sequence[relax.Var]) -> tuple[onnx.NodeProto, ...]:
        nodes = [self.program.sources[v].node for v in variables if v in self.program.sources]
        operators = [node for node in nodes if node.op_type not in _CODING]
        return tuple({node.name: node for node in operators or reversed(nodes)}.values())

    def _escape(self, match: Match) -> str | None:
        inner = {*match.inside, match.root}
        for variable in match.inside:
            outside = [v for v in self.program.readers.get(variable, ()) if v not in inner]
            if outside or variable in self.program.outputs:
                return f"not quantised: its float result also goes to {self._reader_name(outside)}"
        return None

    def _reason(self, variable: relax.Var, node: onnx.NodeProto) -> str:
        if node.name in self.refusals:
            return self.refusals[node.name]
        if node.op_type in _CODING:
            return "the operators around it run on the host"
        if node.op_type == "If":
            return "the NPU has no If"
        value = self.program.values[variable]
        call = self.program.resolve(value.tuple_value) if isinstance(value, relax.TupleGetItem) else value
        if is_call(call) and call.op.name not in known_operators():
            return f"the NPU has no {node.op_type}"
        plain = [read for read in self._reads(variable) if dtype_of(read) == "float32"
                 and not is_call(self.program.resolve(read), "relax.dequantize")]  # fmt: skip
        if plain:
            return f"not quantised: it reads float32 from {self._name_of(plain[0])}"
        users = self.program.readers.get(variable, ())
        floating = [user for user in users if not is_call(self.program.values[user], "relax.quantize")]
        if floating or not users:
            return f"not quantised: its float result goes to {self._reader_name(floating)}"
        return f"the NPU has no {node.op_type} of this form"

    def _reads(self, variable: relax.Var) -> list[relax.Var]:
        """What the variable's ONNX node reads that depends on the model's inputs."""
        reads: list[relax.Var] = []
        for read in variables_in(self.program.values[variable]):
            inner = read in self.program.values and read not in self.program.sources
            reads += self._reads(read) if inner else [read]
        return [read for read in reads if read in self.dependent]

    def _name_of(self, variable: relax.Var) -> str:
        if variable in self.program.sources:
            return self.program.sources[variable].node.name
        return f"the model's input {variable.name!r}"

    def _reader_name(self, variables: Sequence[relax.Var]) -> str:
        """The ONNX node that one of the variables belongs to; without any, the result leaves the model."""
        for variable in variables:
            current = variable
            while current not in self.program.sources and self.program.readers.get(current):
                current = self.program.readers[current][0]
            if current in self.program.sources:
                return self.program.sources[current].node.name
        return "the model's output"

    def _is_live(self, variable: relax.Var) -> bool:
        value = self.program.values[variable]
        used = variable in self.program.outputs or bool(self.program.readers.get(variable))
        return used and isinstance(value, tvm.ir.Call | relax.TupleGetItem) and variable in self.dependent


def _dependent_on_input(program: Program, order: Iterable[relax.Var]) -> frozenset[relax.Var]:
    dependent: set[relax.Var] = set()
    for variable in order:
        reads = list(variables_in(program.values[variable]))
        dependent.update(read for read in reads if read not in program.values)
        if not dependent.isdisjoint(reads):
            dependent.add(variable)
    return frozenset(dependent)


def _operands(program: Program, matched: Mapping[DFPattern, relax.Expr], entry: Entry) -> tuple[relax.Expr, ...]:
    """What a match reads: what its dequantise parts dequantise, or the main call's own data; constants as they are."""
    if not entry.on_codes:
        return tuple(_behind(program, matched[read]) for read in entry.reads)
    first = program.resolve_tuple(matched[entry.parts["main"]].args[0])
    return tuple(first.fields) if isinstance(first, relax.Tuple) else (first,)


def _behind(program: Program, read: relax.Expr) -> relax.Expr:
    call = program.resolve(read)
    if is_call(call, "relax.dequantize") and isinstance(call.args[0], relax.Var):
        return call.args[0]
    return call


def _candidates(program: Program, variable: relax.Var) -> Sequence[Entry]:
    """The entries that can match here, by the names of the calls behind the variable."""
    value = program.values[variable]
    on_codes = not is_call(value, "relax.quantize")
    names = set(_chain(program, value)[:1] if on_codes else _chain(program, value))
    if "relax.concat" in names:
        return concatenation(len(_concatenated(program, value).fields))
    return [entry for entry in entries() if entry.operator in names and entry.on_codes == on_codes]


def _chain(program: Program, value: relax.Expr) -> list[str]:
    """Names of the operators from a call back to the first dequantise."""
    names: list[str] = []
    for _ in range(_CHAIN):
        if not isinstance(value, tvm.ir.Call) or not isinstance(value.op, tvm.ir.Op):
            break
        names.append(value.op.name)
        if value.op.name == "relax.dequantize" or not value.args:
            break
        value = program.resolve(value.args[0])
    return names


def _concatenated(program: Program, value: relax.Expr) -> relax.Tuple:
    call = value if is_call(value, "relax.concat") else program.resolve(value.args[0])
    return program.resolve_tuple(call.args[0])
