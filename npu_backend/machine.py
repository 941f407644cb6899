"""Machine files: the shipped ones by name, a user's by path, checked strictly.

Every problem of a file is reported at once: which key, its value, and what is allowed there. Keys that a core lacks
come from the table `core_defaults`, so that equal cores are written once.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any, get_args, get_type_hints

from pydantic import TypeAdapter, ValidationError

from npu_backend.errors import MachineError
from npu_backend.machine_types import (
    Bus,
    Core,
    Crossbar,
    Dram,
    Energy,
    Link,
    LinkList,
    MacArray,
    Machine,
    Mesh,
    Network,
    Rates,
    Ring,
    Synchronization,
)

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = [
    "load_machine", "machine_names", "parse_machine",
    "Machine", "Core", "MacArray", "Rates", "Network", "Bus", "Crossbar", "Ring", "Mesh", "LinkList", "Link",
    "Dram", "Synchronization", "Energy",
]  # fmt: skip

_DEFAULTS = "core_defaults"
_SHIPPED = Path(__file__).parent / "machines"
_TOPOLOGIES = tuple(get_args(get_type_hints(kind)["topology"])[0] for kind in get_args(Network))


def machine_names() -> tuple[str, ...]:
    """Names of the shipped machines, sorted."""
    return tuple(sorted(path.stem for path in _SHIPPED.glob("*.toml")))


def machine_path(name: str) -> Path:
    """The file of a shipped machine."""
    return _SHIPPED / f"{name}.toml"


def load_machine(name_or_path: str | Path) -> Machine:
    """A shipped machine by name, or the machine of a TOML file (a path that ends in .toml or holds a separator).

    Raises MachineError when there is none or the file is not a valid description.
    """
    text = str(name_or_path)
    path = Path(text)
    if path.suffix == ".toml" or path.name != text:
        return parse_machine(_read(path), text)
    if text not in machine_names():
        close = get_close_matches(text, machine_names(), 1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise MachineError(f"no machine {text!r}: {hint}shipped are {', '.join(machine_names())}; "
                           "a file of your own must end in .toml")  # fmt: skip
    return parse_machine(_read(machine_path(text)), text)


def parse_machine(text: str, source: str) -> Machine:
    """The machine a TOML text describes; `source` names it in errors.

    Raises MachineError with every problem found.
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise MachineError(f"machine file {source} is not TOML: {error}") from error
    try:
        # Through JSON, where strict means that a list is a tuple and a table an object, but a string no number.
        machine = _adapter().validate_json(json.dumps(_with_defaults(data), default=str))
    except ValidationError as error:
        raise _error(source, list(dict.fromkeys(_problems(error, data)))) from error
    problems = list(_contradictions(machine))
    if problems:
        raise _error(source, problems)
    return machine


def _with_defaults(data: Mapping[str, Any]) -> dict[str, Any]:
    defaults, cores = data.get(_DEFAULTS), data.get("cores")
    if not isinstance(defaults, Mapping) or not isinstance(cores, list):
        return dict(data)
    merged = [{**defaults, **core} if isinstance(core, Mapping) else core for core in cores]
    return {**{key: value for key, value in data.items() if key != _DEFAULTS}, "cores": merged}


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise MachineError(f"machine file {path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise MachineError(f"machine file {path} cannot be read, it is no text: {error}") from error


@cache
def _adapter() -> TypeAdapter[Machine]:
    return TypeAdapter(Machine)


def _error(source: str, problems: Sequence[str]) -> MachineError:
    return MachineError(f"machine file {source}: " + "\n  ".join(["", *problems] if len(problems) > 1 else problems))


def _problems(error: ValidationError, data: Any) -> Iterator[str]:
    for row in error.errors(include_url=False):
        location = _without_tags(row["loc"], data)
        key, kind, value = _key(_as_written(location, data)), row["type"], row["input"]
        if kind == "missing":
            yield f"{key} is missing"
        elif kind in ("unexpected_keyword_argument", "extra_forbidden"):
            yield f"{key} = {_show(value)} is an unknown key; {_alternatives(location, data)}"
        elif kind.startswith("union_tag"):
            found = value.get("topology") if isinstance(value, Mapping) else value
            yield f"{key}.topology = {_show(found)}: must be one of {', '.join(_TOPOLOGIES)}"
        else:
            yield f"{key} = {_show(value)}: {_lower(row['msg'])}"


def _without_tags(location: tuple[int | str, ...], data: Any) -> tuple[int | str, ...]:
    """The location without the topology that the validator puts after "network"."""
    topology = location[1] if len(location) > 1 and location[0] == "network" else None
    return location[:1] + location[2:] if topology in _TOPOLOGIES else location


def _as_written(location: Sequence[int | str], data: Mapping[str, Any]) -> Sequence[int | str]:
    """Where the file says it: a core's key may come from the defaults."""
    if len(location) < 3 or location[0] != "cores":
        return location
    own, key = data["cores"][location[1]], location[2]
    return location if key in own or key not in data.get(_DEFAULTS, {}) else (_DEFAULTS, *location[2:])


def _key(location: Sequence[int | str]) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return text.removeprefix(".") or "the file"


def _show(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def _lower(message: str) -> str:
    return message.replace("Input should be", "must be").replace("should have", "must have")


def _alternatives(location: Sequence[int | str], data: Any) -> str:
    allowed = _allowed(location[:-1], data) + ([_DEFAULTS] if len(location) == 1 else [])
    close = get_close_matches(str(location[-1]), allowed, 1)
    hint = f"did you mean {close[0]}? " if close else ""
    return f"{hint}allowed: {', '.join(allowed)}"


def _allowed(location: Sequence[int | str], data: Any) -> list[str]:
    """Keys of the table at a location."""
    kind: Any = Machine
    for part in location:
        if part == "network":
            kind = _network_type(data[part]["topology"])
        elif isinstance(part, str):
            kind = _table_type(get_type_hints(kind)[part])
    return [field.name for field in fields(kind)]


def _network_type(topology: str) -> type[Network]:
    kinds: tuple[type[Network], ...] = get_args(Network)
    return next(kind for kind in kinds if get_args(get_type_hints(kind)["topology"])[0] == topology)


def _table_type(hint: Any) -> Any:
    """The dataclass inside a hint such as tuple[Core, ...]."""
    return hint if is_dataclass(hint) else get_args(hint)[0]


def _contradictions(machine: Machine) -> Iterator[str]:
    """What the types cannot say."""
    names = [core.name for core in machine.cores]
    if not names:
        yield "cores is empty; a machine needs at least one"
    for index, core in enumerate(machine.cores):
        if core.name in names[:index]:
            first = names.index(core.name)
            yield f"cores[{index}].name = {_show(core.name)} is also cores[{first}]'s; give each its own"
        if core.spm_bytes % core.spm_banks:
            yield f"cores[{index}].spm_bytes = {core.spm_bytes} is no multiple of its {core.spm_banks} spm_banks"
    if machine.dram.burst_bytes & (machine.dram.burst_bytes - 1):
        yield f"dram.burst_bytes = {machine.dram.burst_bytes} is no power of two"
    yield from _network_contradictions(machine.network, names)


def _network_contradictions(network: Network, names: Sequence[str]) -> Iterator[str]:
    if isinstance(network, Ring | Mesh):
        yield from _node_contradictions(network, len(names))
    elif isinstance(network, LinkList):
        yield from _link_contradictions(network, names)


def _node_contradictions(network: Ring | Mesh, cores: int) -> Iterator[str]:
    nodes = network.nodes if isinstance(network, Ring) else network.rows * network.columns
    if nodes < cores:
        yield f"network: a {network.topology} of {nodes} nodes has no room for {cores} cores"
    if not network.memory_nodes:
        yield "network.memory_nodes is empty; name the nodes where DRAM is attached"
    if len(set(network.memory_nodes)) != len(network.memory_nodes):
        yield f"network.memory_nodes = {list(network.memory_nodes)} names a node twice"
    for node in network.memory_nodes:
        if node >= nodes:
            yield f"network.memory_nodes has node {node}; the {network.topology} has nodes 0..{nodes - 1}"


def _link_contradictions(network: LinkList, names: Sequence[str]) -> Iterator[str]:
    if "dram" in names:
        yield 'a core may not be named "dram" in a network of links: that is the memory\'s node'
    seen: set[tuple[str, str]] = set()
    for index, link in enumerate(network.links):
        if link.source == link.destination:
            yield f"network.links[{index}] joins {_show(link.source)} to itself"
        ways = {(link.source, link.destination)} | (set() if link.one_way else {(link.destination, link.source)})
        if ways & seen:
            yield f"network.links[{index}] joins {_show(link.source)} and {_show(link.destination)} a second time"
        seen |= ways
    linked = {node for way in seen for node in way}
    for node in (*names, "dram"):
        if node not in linked:
            yield f'network.links reach every core and "dram", but none ends at {_show(node)}'
