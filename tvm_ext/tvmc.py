"""The NPU in TVM's own command line: what `tvmc compile`, `run` and `tune-npu` do for ``--target "npu ..., llvm"``.

All that this changes in tvmc is in `install`. Other targets are compiled as they were.
"""

from __future__ import annotations

import argparse
import functools
import json
import re
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tvm
from tvm.driver import tvmc
from tvm.driver.tvmc import TVMCException, compiler, composite_target, frontends
from tvm.driver.tvmc import main as tvmc_main
from tvm.driver.tvmc import model as tvmc_model
from tvm.driver.tvmc import target as tvmc_target
from tvm.driver.tvmc.shape_parser import parse_shape_string
from tvm.rpc import server

from npu_backend.errors import NpuError
from npu_backend.program import Program
from npu_backend.report.stages import program_text
from tvm_ext.carrier import build_carrier
from tvm_ext.cli.options import DEFAULT_MACHINE, TARGET_COMMA, TARGET_OPTIONS, Plan, plan_of_target
from tvm_ext.cli.session import ProgramCompiler
from tvm_ext.cli.talk import Talk
from tvm_ext.cli.tuning import tune_file, tuning_table
from tvm_ext.driver import FrontEnd, import_model, kernels_in, metadata_of
from tvm_ext.package import EXECUTOR, LIBRARY, PARAMETERS, Metadata, Package, read_members, write_package
from tvm_ext.parts import CODEGEN
from tvm_ext.relay_host import carry, host_triple
from tvm_ext.tuning import is_records

# Attributes of a module that was read from an ONNX file: where that is, and the shapes given with it.
_PATH, _SHAPES = "onnx_path", "onnx_shapes"
# Transformations that tvmc makes before it divides a model, which would be made in vain.
_TRANSFORMS = ("desired_layout", "mixed_precision")
_PROGRAM_FORMAT = "npu"

# The command line's target while a model is read: for the NPU it is imported our way, and at once.
_target: ContextVar[str] = ContextVar("npu_target", default="")
# What --tuning-records names, where that is a file of ours and none of AutoTVM's.
_records: ContextVar[str | None] = ContextVar("npu_records", default=None)
# The parts of a target's text: names, options with quotes somewhere in them, and commas between targets.
_TOKEN = re.compile(rf"""{TARGET_COMMA}|(?:[^\s,"']|,(?=[+-])|"[^"]*"|'[^']*')+""")


@dataclass(frozen=True)
class _Compiled:
    """What belongs into the package that tvmc writes next; `folder` holds the carrier until then."""

    metadata: Metadata
    programs: Mapping[str, bytes]
    folder: tempfile.TemporaryDirectory[str]


_compiled: ContextVar[_Compiled | None] = ContextVar("npu_compiled", default=None)


def install() -> None:
    """Registers the target, and mends what of tvmc stands in its way."""
    composite_target.REGISTERED_CODEGEN[CODEGEN] = {"config_key": None, "pass_pipeline": _partition}
    tvmc_target._generate_codegen_args = _with_options(tvmc_target._generate_codegen_args)
    tvmc_target._reconstruct_codegen_args = _with_given(tvmc_target._reconstruct_codegen_args)
    frontends.OnnxFrontend.load = _loading(frontends.OnnxFrontend.load)
    compiler.drive_compile = _driving(compiler.drive_compile)
    compiler.compile_model = tvmc.compile = _compiling(compiler.compile_model)
    compiler.target_from_cli = _on_this_host(compiler.target_from_cli)
    tvmc_model.TVMCModel.export_package = _exporting(tvmc_model.TVMCModel.export_package)
    server._server_env = _loading_modules(server._server_env)
    tvmc_target.tokenize_target = _with_paths(tvmc_target.tokenize_target)
    tvmc_main.register_parser(_add_tune_parser)


def _add_tune_parser(subparsers: Any, _: object, defaults: Sequence[Mapping[str, Any]]) -> None:
    """tvmc's own `tune` searches schedules of operators of the host, of which the NPU has none."""
    parser = subparsers.add_parser("tune-npu", help="find the best strategy and cores of the NPU for a model")
    parser.add_argument("FILE", type=Path, help="path to the ONNX file")
    parser.add_argument("-o", "--output", type=Path, required=True, help="records, kept and continued (JSON lines)")
    parser.add_argument("--machine", default=DEFAULT_MACHINE, help="the machine: a name, or a TOML file")
    parser.add_argument("--input-shapes", type=parse_shape_string, default=None, help="of inputs with open extents")
    parser.add_argument("--no-kernels", action="store_true", help="let the host run what the engines do not know")
    parser.set_defaults(func=_drive_tune)
    for each in defaults:
        parser.set_defaults(**each)


def _drive_tune(args: argparse.Namespace) -> int:
    shapes = {name: tuple(shape) for name, shape in (args.input_shapes or {}).items()}
    talk = Talk()
    try:
        kernels = not args.no_kernels
        talk.show(tuning_table(tune_file(args.FILE, args.output, args.machine, shapes, talk, kernels=kernels)))
    except NpuError as error:
        raise TVMCException(str(error)) from error
    return 0


def _partition(module: tvm.IRModule, params: object = None, mod_name: str = "default", **options: str) -> tvm.IRModule:
    """tvmc's hook for a target beside its own: the module with calls of the NPU's programs."""
    del params, mod_name
    try:
        start = time.perf_counter()
        if (records := _records.get()) is not None:
            options.setdefault("tuning-records", records)
        path, shapes = _source_of(module)
        plan = plan_of_target(options, path, shapes)
        front = import_model(path, shapes, **plan.front_end)
        _compiled.set(_compile(front, plan, start))
    except NpuError as error:
        raise TVMCException(str(error)) from error
    return front.partitioned.module


def _source_of(module: tvm.IRModule) -> tuple[Path, dict[str, tuple[int, ...]]]:
    """The ONNX file that a module was read from, and the shapes given with it."""
    attributes = module.attrs
    if attributes is None or _PATH not in attributes.keys():  # noqa: SIM118
        raise TVMCException("the NPU takes models from ONNX files only: TVM's form of another kind of file does not"
                            " tell their operators; export the model to ONNX")  # fmt: skip
    shapes = {name: tuple(shape) for name, shape in json.loads(str(attributes[_SHAPES])).items()}
    return Path(str(attributes[_PATH])), shapes


def _compile(front: FrontEnd, plan: Plan, start: float) -> _Compiled:
    compile_graph = ProgramCompiler(plan, lambda *_: None)
    programs = {symbol: compile_graph(graph) for symbol, graph in front.partitioned.graphs.items()}
    folder = tempfile.TemporaryDirectory(prefix="npu_tvmc.")
    if programs:
        kernels = kernels_in(front.partitioned.graphs, programs)
        carry(build_carrier(programs, Path(folder.name), kernels), list(programs))
    metadata = metadata_of(front, machine=plan.machine.name, cores=len(plan.machine.cores),
                           strategy=plan.strategy.name, seconds=time.perf_counter() - start)  # fmt: skip
    return _Compiled(metadata, programs, folder)


def _is_ours(target: str | None) -> bool:
    return target is not None and any(part.split()[:1] == [CODEGEN] for part in re.split(TARGET_COMMA, target))


def _driving(drive: Callable[..., int]) -> Callable[..., int]:
    @functools.wraps(drive)
    def driving(args: argparse.Namespace) -> int:
        token = _target.set(args.target or "")
        try:
            return drive(args)
        finally:
            _target.reset(token)

    return driving


def _loading(load: Callable[..., Any]) -> Callable[..., Any]:
    """The module says which file it is of. On the command line of the NPU, TVM's importer need not run at all."""

    @functools.wraps(load)
    def loading(self: Any, path: str, shape_dict: Mapping[str, Sequence[int]] | None = None, **options: Any) -> Any:
        if _is_ours(_target.get()):
            module, params = tvm.IRModule.from_expr(tvm.relay.Function([], tvm.relay.Tuple([]))), {}
        else:
            module, params = load(self, path, shape_dict, **options)
        shapes = {name: [int(extent) for extent in shape] for name, shape in (shape_dict or {}).items()}
        for name, text in ((_PATH, str(Path(path).resolve())), (_SHAPES, json.dumps(shapes))):
            module = module.with_attr(name, tvm.runtime.String(text))
        return module, params

    return loading


def _compiling(compile_model: Callable[..., Any]) -> Callable[..., Any]:
    """For the NPU, options that would be without effect are refused, and its disassembly can be dumped."""

    @functools.wraps(compile_model)
    def compiling(model: Any, target: str, *positional: Any, **options: Any) -> Any:
        if not _is_ours(target):
            return compile_model(model, target, *positional, **options)
        _refuse_useless(options)
        formats = options.get("dump_code") or []
        formats = [formats] if isinstance(formats, str) else list(formats)
        options["dump_code"] = [each for each in formats if each != _PROGRAM_FORMAT]
        records, options["tuning_records"] = _records_of_both(options.get("tuning_records"))
        tokens = _records.set(records), _compiled.set(None)
        try:
            package = compile_model(model, target, *positional, **options)
            if _PROGRAM_FORMAT in formats:
                _dump_programs(package.package_path)
        except tvm.TVMError as error:
            if "does not support GetSource" not in str(error):
                raise
            raise TVMCException(f"--dump-code {','.join(options['dump_code'])}: there is no code for the host beside"
                                f" the NPU's, which is {_PROGRAM_FORMAT}") from error  # fmt: skip
        finally:
            _records.reset(tokens[0])
            _compiled.reset(tokens[1])
        return package

    return compiling


def _refuse_useless(options: Mapping[str, Any]) -> None:
    useless = [f"--{name.replace('_', '-')}" for name in _TRANSFORMS if options.get(name)]
    if useless:
        raise TVMCException(f"{', '.join(useless)}: the NPU is given the ONNX file as it is; leave this out")
    if options.get("use_vm") or options.get("output_format", "so") != "so":
        raise TVMCException("the NPU's package is one of the graph executor with a shared library:"
                            " leave out use_vm, and --output-format")  # fmt: skip


def _records_of_both(path: str | None) -> tuple[str | None, str | None]:
    """What --tuning-records names, as the NPU's or else as AutoTVM's for the host."""
    if path and not Path(path).is_file():
        raise TVMCException(f"--tuning-records {path}: no such file")
    return (path, None) if path and is_records(Path(path)) else (None, path)


def _dump_programs(package_path: str) -> None:
    compiled = _compiled.get()
    if compiled is not None:
        texts = [program_text(Program.from_bytes(data)) for data in compiled.programs.values()]
        compiler.save_dumps(package_path, {_PROGRAM_FORMAT: "".join(texts)})


def _exporting(export: Callable[..., str]) -> Callable[..., str]:
    """tvmc's package, and in it the NPU's programs and what they were made of."""

    @functools.wraps(export)
    def exporting(self: Any, factory: Any, *positional: Any, **options: Any) -> str:
        path, compiled = export(self, factory, *positional, **options), _compiled.get()
        if compiled is None:
            return path
        members = read_members(Path(path))
        write_package(Package(replace(compiled.metadata, model=Path(path).stem), members[LIBRARY], members[EXECUTOR],
                              members[PARAMETERS], compiled.programs), path)  # fmt: skip
        compiled.folder.cleanup()
        return path

    return exporting


def _on_this_host(target_from_cli: Callable[..., Any]) -> Callable[..., Any]:
    """hhb-tvm's LLVM takes a RISC-V for the host: beside the NPU, `llvm` without a triple is this machine."""

    @functools.wraps(target_from_cli)
    def on_this_host(target: str, *positional: Any, **options: Any) -> Any:
        if _is_ours(target) and "-mtriple" not in target:
            parts = [part.strip() for part in re.split(TARGET_COMMA, target)]
            target = ", ".join(f"{part} -mtriple={host_triple()}" if part.split()[:1] == ["llvm"] else part
                               for part in parts)  # fmt: skip
        return target_from_cli(target, *positional, **options)

    return on_this_host


def _with_paths(tokenize: Callable[[str], list[str]]) -> Callable[[str], list[str]]:
    """tvmc takes a slash for the end of a word, so that an option of the NPU could name no file elsewhere."""

    @functools.wraps(tokenize)
    def with_paths(target: str) -> list[str]:
        return _TOKEN.findall(target) if _is_ours(target) else tokenize(target)

    return with_paths


def _with_options(generate: Callable[..., None]) -> Callable[..., None]:
    """``--target-npu-cores 3`` beside ``-cores=3`` in the target's text."""

    @functools.wraps(generate)
    def with_options(parser: argparse.ArgumentParser, name: str) -> None:
        if name != CODEGEN:
            generate(parser, name)
            return
        group = parser.add_argument_group(f"target {CODEGEN}")
        for option, meaning in TARGET_OPTIONS.items():
            group.add_argument(f"--target-{CODEGEN}-{option}", help=meaning)

    return with_options


def _with_given(reconstruct: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    @functools.wraps(reconstruct)
    def with_given(args: argparse.Namespace, name: str) -> dict[str, Any]:
        if name != CODEGEN:
            return reconstruct(args, name)
        given = {option: getattr(args, f"target_{CODEGEN}_{option.replace('-', '_')}", None)
                 for option in TARGET_OPTIONS}  # fmt: skip
        return {option: value for option, value in given.items() if value is not None}

    return with_given


def _loading_modules(environment: Callable[..., Any]) -> Callable[..., Any]:
    """hhb-tvm's runtime passes two arguments more than the function takes that `tvmc run` loads a module by."""

    @functools.wraps(environment)
    def loading_modules(*positional: Any, **options: Any) -> Any:
        folder = environment(*positional, **options)
        load = tvm.get_global_func("tvm.rpc.server.load_module")
        tvm.register_func("tvm.rpc.server.load_module", lambda name, *_: load(name), override=True)
        return folder

    return loading_modules
