"""Options that several commands share, and what they say together: machine, strategy and shapes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from npu_backend.machine_types import Machine
    from npu_backend.strategies import Strategy

DEFAULT_MACHINE = "exynos2100"
DEFAULT_STRATEGY = "stratum"
# What the target's text says of the NPU.
TARGET_OPTIONS = {
    "machine": "the machine: a name, or a TOML file",
    "cores": "its first N cores",
    "strategy": "how layers are divided",
    "spm-bytes": "scratchpad of every core, instead of the machine's",
    "tuning-records": "what tuning wrote: take the best strategy and cores for the model on the machine",
    "kernels": "1: the vector processors run what TVM lowers and the engines do not know; 0: the host does",
}
_SHAPE = re.compile(r"\s*,?\s*(?P<name>[^\s\[\]]+):\[(?P<extents>[^\]]*)\]\s*")

# A comma that parts targets, as in tvmc: not the one in -mattr=+a,+b.
TARGET_COMMA = r",(?![+-])"

Function = TypeVar("Function", bound=Callable[..., Any])

FILE = click.Path(path_type=Path)


@dataclass(frozen=True)
class Plan:
    """What to compile for: the machine with the cores to use, the strategy, the shapes of dynamic inputs.

    `kernels`: whether the vector processors run what the engines do not know.
    """

    machine: Machine
    strategy: Strategy
    shapes: Mapping[str, tuple[int, ...]]
    kernels: bool = True

    @property
    def front_end(self) -> dict[str, Any]:
        """What `tvm_ext.driver.import_model` is to know of the machine."""
        from tvm_ext.driver import front_end_options

        return front_end_options(self.machine, kernels=self.kernels)


@dataclass(frozen=True)
class PlanOptions:
    """The options as given; None where one was not."""

    target: str | None
    machine: str | None
    cores: int | None
    strategy: str | None
    spm_bytes: int | None
    shapes: str | None
    kernels: bool | None = None
    tuning_records: Path | None = None

    def given(self) -> list[str]:
        """The flags the user gave."""
        return [f"--{name.replace('_', '-')}" for name, value in vars(self).items() if value is not None]

    def plan(self, model: Path | None = None) -> Plan:
        """The plan; tuning records are those of `model`.

        Raises OptionError for options that do not exist or contradict one another, MachineError for the machine.
        """
        target = parse_target(self.target) if self.target is not None else {}
        kernels = None if self.kernels is None else int(self.kernels)
        flags = (self.machine, self.cores, self.strategy, self.spm_bytes, self.tuning_records, kernels)
        said = {name: _agreed(name, flag, target) for name, flag in zip(TARGET_OPTIONS, flags, strict=True)}
        options = {name: value for name, value in said.items() if value is not None}
        return plan_of_target(options, model, parse_shapes(self.shapes) if self.shapes is not None else {})


def plan_of_target(
    options: Mapping[str, str], model: Path | None = None, shapes: Mapping[str, tuple[int, ...]] | None = None
) -> Plan:
    """The plan that options of the target make, for a model that tuning records may be of.

    Raises OptionError, MachineError, and InputError for records that are none.
    """
    from npu_backend.machine import load_machine
    from npu_backend.strategies import strategy_named

    for name, value in options.items():
        if name not in TARGET_OPTIONS:
            raise _unknown_option(f"-{name}={value}")
    machine = load_machine(options.get("machine", DEFAULT_MACHINE))
    strategy_name = options.get("strategy")
    cores, spm_bytes = (_integer(name, options.get(name)) for name in ("cores", "spm-bytes"))
    machine = machine if spm_bytes is None else machine.with_spm_bytes(spm_bytes)
    kernels = options.get("kernels", "1")
    if kernels not in ("0", "1"):
        raise _option_error(f"--target says -kernels={kernels}; it must be 0 or 1")
    if "tuning-records" in options and model is not None:
        from tvm_ext.tuning import model_key, tuned_choice

        key = model_key(model, shapes or {}, kernels=kernels == "1")
        choice = tuned_choice(Path(options["tuning-records"]), model, key, machine, strategy_name, cores)
        strategy_name, cores = choice.strategy, choice.cores
    strategy = strategy_named(strategy_name or DEFAULT_STRATEGY)
    machine = machine if cores is None else machine.take(cores)
    return Plan(machine, strategy, shapes or {}, kernels == "1")


def _of_target(name: str, **settings: Any) -> Callable[[Function], Function]:
    """A flag for an option of the target, under tvmc's name too."""
    return click.option(f"--{name}", f"--target-npu-{name}", name.replace("-", "_"), **settings)


def plan_options(command: Function) -> Function:
    """Adds the options of `PlanOptions` to a command."""
    options = (
        click.option(
            "--target", metavar="TEXT", help='As tvmc has it: "npu -machine=NAME -cores=N -strategy=NAME, llvm".'
        ),
        _of_target("machine", metavar="NAME|FILE.toml", help=f"The machine; {DEFAULT_MACHINE} by default."),
        _of_target("cores", type=int, metavar="N", help="Its first N cores; all by default."),
        _of_target("strategy", metavar="NAME", help=f"How layers are divided; {DEFAULT_STRATEGY} by default."),
        _of_target("spm-bytes", type=int, metavar="N", help="Scratchpad of every core, instead of the machine's."),
        click.option(
            "--kernels/--no-kernels",
            default=None,
            help="Let the vector processors run what TVM lowers and the engines do not know (the default), or"
            " the host.",
        ),
        _of_target(
            "tuning-records",
            type=FILE,
            metavar="FILE.jsonl",
            help="Take cores and strategy from the fastest record that npuc tune made of the model.",
        ),
        click.option(
            "--shapes",
            "--input-shapes",
            "shapes",
            metavar="TEXT",
            help='Shapes of dynamic inputs: "input:[1,3,224,224]".',
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def talk_options(command: Function) -> Function:
    """Adds --verbose and --quiet to a command."""
    command = click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")(command)
    return click.option("-v", "--verbose", is_flag=True, help="Print all layers, and what is done.")(command)


def tvmc_options(taken: Mapping[str, str], refused: Mapping[str, str]) -> Callable[[Function], Function]:
    """Adds tvmc's flags that change nothing here, with the only value they may have, and those that are refused, why.

    Several names of one flag are parted by blanks. Refused flags take a value or none.
    """

    def add(command: Function) -> Function:
        for names, value in taken.items():
            command = click.option(*names.split(), type=click.Choice([value]), expose_value=False, help="As tvmc has"
                                   " it; changes nothing.")(command)  # fmt: skip
        for names, reason in refused.items():
            command = click.option(*names.split(), is_flag=False, flag_value="", hidden=True, expose_value=False,
                                   callback=_refusing(reason))(command)  # fmt: skip
        return command

    return add


def _refusing(reason: str) -> Callable[[click.Context, click.Parameter, str | None], None]:
    def refuse(context: click.Context, flag: click.Parameter, value: str | None) -> None:
        del context
        if value is not None:
            raise click.UsageError(f"{flag.opts[0]} of tvmc is not taken: {reason}")

    return refuse


def parse_target(text: str) -> dict[str, str]:
    """Options of ``npu -key=value ..., llvm``; the host's part may be left out.

    Raises OptionError.
    """
    npu, _, host = text.partition(",")
    try:
        words, host_words = shlex.split(npu), shlex.split(host)
    except ValueError as error:
        raise _option_error(f"--target {text!r}: {error}") from error
    if not words or words[0] != "npu":
        raise _option_error(f'--target {text!r} must start with npu, for example "npu -cores=3, llvm"')
    if host_words not in ([], ["llvm"]):
        raise _option_error(f"--target {text!r}: the host's part is {host.strip()!r}; use llvm or leave it out")
    return dict(_target_option(text, word) for word in words[1:])


def _target_option(text: str, word: str) -> tuple[str, str]:
    key, equals, value = word.lstrip("-").partition("=")
    if not word.startswith("-") or not equals or not value or key not in TARGET_OPTIONS:
        raise _unknown_option(word, f"--target {text!r}: ")
    return key, value


def _unknown_option(word: str, where: str = "") -> Exception:
    known = ", ".join(f"-{name}=" for name in TARGET_OPTIONS)
    return _option_error(f"{where}{word!r} is no option of npu; there are {known}")


def parse_shapes(text: str) -> dict[str, tuple[int, ...]]:
    """Shapes by input name of ``name:[1,3] other:[5]``.

    Raises OptionError.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    position = 0
    while position < len(text):
        match = _SHAPE.match(text, position)
        if match is None or not all(part.strip().isdigit() for part in _extents(match)):
            raise _option_error(f'--shapes {text!r} cannot be read; write "name:[1,3,224,224]", several with spaces')
        shapes[match["name"]] = tuple(int(part) for part in _extents(match))
        position = match.end()
    return shapes


def _extents(match: re.Match[str]) -> list[str]:
    return match["extents"].split(",") if match["extents"].strip() else []


def _agreed(name: str, flag: object, target: Mapping[str, str]) -> str | None:
    """What --target and the flag say, which must not differ."""
    value = None if flag is None else str(flag)
    if value is not None and target.get(name, value) != value:
        raise _option_error(f"--target says -{name}={target[name]}, --{name} says {value}; give one of them")
    return target.get(name, value)


def _integer(name: str, value: str | None) -> int | None:
    try:
        return None if value is None else int(value)
    except ValueError:
        raise _option_error(f"--target says -{name}={value}; it must be a whole number") from None


def _option_error(message: str) -> Exception:
    from npu_backend.errors import OptionError

    return OptionError(message)
