"""``--quantize``: a float model quantised before it is compiled."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tvm_ext.cli.options import FILE, PlanOptions
from tvm_ext.cli.talk import LOG, Talk

if TYPE_CHECKING:
    from npu_backend.report.document import HostOperator, Quantization, QuantizedOutput
    from tvm_ext.calibration import Feed
    from tvm_ext.package import HostOp


@dataclass(frozen=True)
class QuantizeOptions:
    """The options as given; None where one was not."""

    quantize: str | None
    calibration: str | None
    preprocess: str | None
    save_quantized: Path | None

    @classmethod
    def taken_from(cls, given: dict[str, Any]) -> QuantizeOptions:
        """Out of a command's options, checked.

        Raises UsageError for options that go together and do not come so, OutputError for a file not writable.
        """
        options = cls(**{name: given.pop(name) for name in cls.__dataclass_fields__})
        options._check()
        return options

    def _check(self) -> None:
        if self.quantize is None:
            others = ("calibration", "preprocess", "save_quantized")
            flags = [f"--{name.replace('_', '-')}" for name in others if getattr(self, name) is not None]
            if flags:
                raise click.UsageError(f"{flags[0]} goes with --quantize; give both")
            return
        if self.calibration is None:
            raise click.UsageError("--quantize needs --calibration: an npz file, a folder of images, or random")
        if self.save_quantized is not None:
            from npu_backend.files import check_writable

            check_writable(self.save_quantized)


@dataclass(frozen=True)
class Source:
    """The ONNX file to compile, or a package; `quantization` is None for what is taken as it is."""

    path: Path
    quantization: Quantization | None = None


def quantize_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options of `QuantizeOptions` to a command."""
    options = (
        click.option("--quantize", type=click.Choice(["int8", "int16"]), help="Quantise the float model first."),
        click.option("--calibration", metavar="DATA", help="What its ranges are taken from: an npz file with samples"
                     " along the first axis, a folder of images, or the word random."),
        click.option("--preprocess", metavar="TEXT|FILE", help='What an image becomes: "mean=..;std=..;scale=1/255;'
                     'layout=nchw;color=rgb;fit=crop", or a .toml or .json file of these.'),
        click.option("--save-quantized", type=FILE, metavar="FILE.onnx", help="Write the quantised model."),
    )  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


@contextmanager
def source_of(model: Path, plan: PlanOptions, options: QuantizeOptions, talk: Talk) -> Iterator[Source]:
    """The file in `model`, or what it becomes quantised.

    Raises OptionError for a package, and what reading, calibrating and quantising do.
    """
    if options.quantize is None:
        yield Source(model)
        return
    from npu_backend.errors import OptionError
    from tvm_ext.cli.session import is_package

    if is_package(model):
        raise OptionError(f"{model} is compiled already: leave out --quantize or name the ONNX file")
    with tempfile.TemporaryDirectory(prefix="npu_quantized.") as folder:
        # Under its own name, which the report takes over.
        yield _quantized(model, plan.plan().shapes, options, Path(folder) / model.with_suffix(".onnx").name, talk)


def _quantized(
    model: Path, shapes: Mapping[str, Sequence[int]], options: QuantizeOptions, target: Path, talk: Talk
) -> Source:
    from npu_backend.files import write_atomically
    from npu_backend.report.document import Quantization
    from tvm_ext.onnx_load import load_model
    from tvm_ext.quantization_error import measure_error
    from tvm_ext.quantize import PRESETS, quantize

    assert options.quantize is not None
    assert options.calibration is not None
    settings = PRESETS[options.quantize]
    original = load_model(model, shapes)
    feeds = _feeds(original, options)
    with talk.progress("quantise") as step:
        step(f"{len(feeds)} samples", None)
        quantized = quantize(original, feeds, **vars(settings))
        step("error of quantising", None)
        outputs = measure_error(original, quantized, feeds)
    content = quantized.SerializeToString(deterministic=True)
    for path in filter(None, (target, options.save_quantized)):
        write_atomically(path, content)
    return Source(target, Quantization(options.quantize, settings.activation_type, settings.weight_type,
                                       settings.per_channel, options.calibration, len(feeds), outputs))  # fmt: skip


def _feeds(model: Any, options: QuantizeOptions) -> list[Feed]:
    from tvm_ext.calibration import RANDOM, read_calibration
    from tvm_ext.images import Preprocess, parse_preprocess
    from tvm_ext.onnx_load import input_infos
    from tvm_ext.quantize import check_model

    assert options.calibration is not None
    check_model(model)
    if options.calibration == RANDOM:
        LOG.warning("warning: calibrating with random data: the ranges, and so the accuracy, are not those of real"
                    " inputs; name an npz file or a folder of images")  # fmt: skip
    preprocess = Preprocess() if options.preprocess is None else parse_preprocess(options.preprocess)
    return read_calibration(options.calibration, input_infos(model), preprocess)


def quantization_lines(quantization: Quantization) -> Iterator[str]:
    """What the report says of it."""
    from tvm_ext.calibration import RANDOM

    per = "channel" if quantization.per_channel else "tensor"
    count, source = quantization.samples, quantization.calibration
    samples = f"{count} random samples" if source == RANDOM else f"{count} samples of {source}"
    yield (f"quantised to {quantization.type} ({quantization.activation_type} activations, {quantization.weight_type}"
           f" weights per {per}) on {samples}; against the float model:")  # fmt: skip
    for output in quantization.outputs:
        yield f"  {output.name}: {', '.join(_error_texts(output))}"


def _error_texts(output: QuantizedOutput) -> Iterator[str]:
    if output.max_abs is None:
        yield "the outputs cannot be compared"
        return
    ratio = "no error to speak of" if output.sqnr_db is None else f"{output.sqnr_db:.1f} dB signal to noise"
    yield f"{ratio}, largest error {output.max_abs:.4g}"
    if output.top1_agreement is not None:
        yield f"top-1 agrees on {output.top1_agreement:.1%}"


def warn_of_float_model(
    model: Path, machine: str, npu_ops: int, vector_ops: int, host_ops: Iterable[HostOperator | HostOp]
) -> None:
    """Where the engines got nothing of a model because it is in float."""
    from npu_backend.rates import machines_for
    from tvm_ext.package import NOT_QUANTIZED

    in_float = any(op.reason.startswith(NOT_QUANTIZED) for op in host_ops) or (vector_ops and _reads_floats(model))
    if npu_ops > vector_ops or not in_float:
        return
    place = "by kernels of the vector processors" if vector_ops else "whole on the host"
    LOG.warning("warning: %s is a float model, which runs %s: the engines of %s do not compute in float; take a machine"
                " whose engines do (--machine %s) or add --quantize int8 --calibration DATA", model, place, machine,
                "|".join(machines_for("float16")))  # fmt: skip


def _reads_floats(model: Path) -> bool:
    """Whether an input of an ONNX file is of floats; packages tell nothing of it."""
    import onnx

    from tvm_ext.cli.session import is_package
    from tvm_ext.onnx_load import model_inputs

    if is_package(model):
        return False
    inputs = model_inputs(onnx.load(model, load_external_data=False))
    return any(value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT for value in inputs)
