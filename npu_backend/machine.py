"""Machine files: the shipped ones by name, a user's by path, checked strictly.

Every problem of a file is reported at once: which key, its value, and what is allowed there. Keys that a core lacks
come from the table `core_defaults`, and a core's `count` stands for as many equal ones, named by its name and a number.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any, get_args, get_type_hints

from pydantic import TypeAdapter, ValidationError

from npu_backend.errors import MachineError
from npu_backend.machine_checks import contradictions
from npu_backend.machine_types import Core, Dram, Energy, MacArray, Machine, Rates, Synchronization
from npu_backend.network_types import Bus, Crossbar, Link, LinkList, LinkOverride, Mesh, Network, Ring, Torus

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = [
    "load_machine", "machine_names", "parse_machine",
    "Machine", "Core", "MacArray", "Rates", "Network", "Bus", "Crossbar", "Ring", "Mesh", "Torus",
    "LinkOverride", "LinkList", "Link",
    "Dram", "Synchronization", "Energy",
]  # fmt: skip

_DEFAULTS, _COUNT, _MOST_CORES = "core_defaults", "count", 1024
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
    tables, problems = _core_tables(data)
    try:
        # Through JSON, where strict means that a list is a tuple and a table an object, but a string no number.
        machine = _adapter().validate_json(json.dumps(_with_cores(data, tables), default=str))
    except ValidationError as error:
        raise _error(source, [*problems, *_problems(error, data, tables)]) from error
    problems += contradictions(machine, tables)
    if problems:
        raise _error(source, problems)
    return machine


def _core_tables(data: Mapping[str, Any]) -> tuple[list[int], list[str]]:
    """The table of the file that each core comes from, and what is wrong with the counts."""
    tables: list[int] = []
    problems: list[str] = []
    cores = data.get("cores")
    for index, core in enumerate(cores if isinstance(cores, list) else []):
        count = core.get(_COUNT, 1) if isinstance(core, Mapping) else 1
        if type(count) is not int or not 1 <= count <= _MOST_CORES:
            problems.append(f"cores[{index}].{_COUNT} = {_show(count)}: must be an integer from 1 to {_MOST_CORES}")
            count = 1
        tables += [index] * count
    return tables, problems


def _with_cores(data: Mapping[str, Any], tables: Sequence[int]) -> dict[str, Any]:
    """The file's data with every core of its own, and with what it lacks from the defaults."""
    defaults, cores = data.get(_DEFAULTS), data.get("cores")
    if not isinstance(cores, list):
        return dict(data)
    usable = defaults if isinstance(defaults, Mapping) else {}
    numbers = Counter[int]()
    whole = []
    for index in tables:
        core = cores[index]
        whole.append({**usable, **_numbered(core, numbers[index])} if isinstance(core, Mapping) else core)
        numbers[index] += 1
    kept = {key: value for key, value in data.items() if key != _DEFAULTS or usable is not defaults}
    return {**kept, "cores": whole}


def _numbered(core: Mapping[str, Any], number: int) -> dict[str, Any]:
    own = {key: value for key, value in core.items() if key != _COUNT}
    return {**own, "name": f"{own['name']}{number}"} if _COUNT in core and isinstance(own.get("name"), str) else own


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
    different = list(dict.fromkeys(problems))  # equal cores have the same ones
    return MachineError(f"machine file {source}: " + "\n  ".join(["", *different] if len(different) > 1 else different))


def _problems(error: ValidationError, data: Any, tables: Sequence[int]) -> Iterator[str]:
    for row in error.errors(include_url=False):
        location = _of_file(_without_tags(row["loc"], data), tables)
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


def _of_file(location: tuple[int | str, ...], tables: Sequence[int]) -> tuple[int | str, ...]:
    """The location with the number of the file's table instead of the core's."""
    number = location[1] if len(location) > 1 and location[0] == "cores" else None
    return (location[0], tables[number], *location[2:]) if isinstance(number, int) else location


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
    allowed = _allowed(location[:-1], data)
    if len(location) == 1:
        allowed.append(_DEFAULTS)
    if len(location) == 3 and location[0] == "cores":
        allowed.append(_COUNT)
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
