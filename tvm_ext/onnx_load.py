"""Reading an ONNX file: whole, valid and with static input shapes, or a ModelError that says what to change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from npu_backend.errors import ModelError
from tvm_ext.package import SEQUENCE, TensorInfo

Shapes = Mapping[str, Sequence[int]]

# Protobuf refuses larger messages, so such a model can only be checked through its path.
_LARGEST_MESSAGE_BYTES = (1 << 31) - 1


def load_model(path: str | Path, shapes: Shapes | None = None) -> onnx.ModelProto:
    """The model in `path`, checked, every input's shape static.

    `shapes` gives the extents of inputs that have symbolic ones. Raises ModelError when the file is missing, truncated,
    no ONNX model or not valid, when its external data is missing, and for a shape that is missing or does not fit.
    """
    model = _read(Path(path))
    _check(Path(path), model)
    return fix_shapes(model, shapes or {})


def is_static(model: onnx.ModelProto) -> bool:
    """Whether every input's extents are numbers."""
    return not any(map(_symbolic, model_inputs(model)))


def fix_shapes(model: onnx.ModelProto, shapes: Shapes) -> onnx.ModelProto:
    """The model with the inputs' extents set from `shapes`; raises ModelError where one is missing or contradicts."""
    inputs = {value.name: value for value in model_inputs(model)}
    for name in shapes:
        if name not in inputs:
            names = ", ".join(inputs)
            raise ModelError(f"--shapes names {name!r}, which is no input of the model; its inputs: {names}")
    if not any(name in shapes or _symbolic(value) for name, value in inputs.items()):
        return model
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    for value in model_inputs(fixed):
        _fix_input(value, shapes.get(value.name))
    # What was inferred under symbolic extents would contradict the new ones.
    del fixed.graph.value_info[:]
    for value in fixed.graph.output:
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.ClearField("shape")
    return fixed


def model_inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """The inputs a caller passes: graph inputs without the weights that old models list among them."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in weights]


def input_infos(model: onnx.ModelProto) -> tuple[TensorInfo, ...]:
    """The inputs a caller passes, of a model whose shapes are static."""
    return tuple(map(tensor_info, model_inputs(model)))


def tensor_info(value: onnx.ValueInfoProto) -> TensorInfo:
    """A tensor as it is declared, with static extents; an optional one counts as given."""
    kind = value.type.optional_type.elem_type if value.type.HasField("optional_type") else value.type
    if kind.HasField("sequence_type"):
        return TensorInfo(value.name, (), SEQUENCE)
    tensor = kind.tensor_type
    shape = tuple(dim.dim_value for dim in tensor.shape.dim)
    return TensorInfo(value.name, shape, onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name)


def _read(path: Path) -> onnx.ModelProto:
    try:
        model = onnx.load(path, load_external_data=False)
    except FileNotFoundError:
        raise ModelError(f"{path}: no such file") from None
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from error
    except DecodeError:
        raise ModelError(f"{path}: no ONNX model, or a truncated one: its {path.stat().st_size} bytes end inside a"
                         " field or are another format; export or copy the file again") from None  # fmt: skip
    if not model.graph.node:
        raise ModelError(f"{path}: no ONNX model, or a truncated one: it holds no operator; export or copy it again")
    _load_external_data(path, model)
    return model


def _load_external_data(path: Path, model: onnx.ModelProto) -> None:
    names = {entry.value for tensor in model.graph.initializer for entry in tensor.external_data
             if entry.key == "location"}  # fmt: skip
    missing = sorted(name for name in names if not (path.parent / name).is_file())
    if missing:
        raise ModelError(f"{path}: its weights are in {', '.join(missing)}, which must lie beside it and"
                         f" {'do' if len(missing) > 1 else 'does'} not exist")  # fmt: skip
    try:
        onnx.load_external_data_for_model(model, str(path.parent))
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        raise ModelError(f"{path}: its external weights cannot be read: {error}") from error


def _check(path: Path, model: onnx.ModelProto) -> None:
    large = model.ByteSize() > _LARGEST_MESSAGE_BYTES
    try:
        with _shapes_of_outputs(model):
            onnx.checker.check_model(str(path) if large else model)
    except onnx.checker.ValidationError as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise ModelError(
            f"{path}: not a valid ONNX model: {reason}; mend that node or export the model again"
        ) from error


@contextmanager
def _shapes_of_outputs(model: onnx.ModelProto) -> Iterator[None]:
    """Some shape for outputs without any: onnx's checker takes the lack for an error, and looks no further at one."""
    tensors = [value.type.tensor_type for value in model.graph.output if value.type.HasField("tensor_type")]
    without = [tensor for tensor in tensors if not tensor.HasField("shape")]
    for tensor in without:
        tensor.shape.SetInParent()
    try:
        yield
    finally:
        for tensor in without:
            tensor.ClearField("shape")


def _dims(value: onnx.ValueInfoProto) -> list[int | str]:
    """Extents; a symbolic one as its name, ``?`` where it has none (some exporters write -1). 0 is an extent."""
    return [
        dim.dim_value if dim.HasField("dim_value") and dim.dim_value >= 0 else dim.dim_param or "?"
        for dim in value.type.tensor_type.shape.dim
    ]


def _symbolic(value: onnx.ValueInfoProto) -> bool:
    if not value.type.HasField("tensor_type"):
        return False
    return not value.type.tensor_type.HasField("shape") or any(isinstance(dim, str) for dim in _dims(value))


def _fix_input(value: onnx.ValueInfoProto, shape: Sequence[int] | None) -> None:
    dims = _dims(value)
    known = value.type.tensor_type.HasField("shape")
    text = f"[{', '.join(map(str, dims))}]" if known else "no shape at all"
    if shape is None:
        if _symbolic(value):
            symbols = ", ".join(dict.fromkeys(dim for dim in dims if isinstance(dim, str))) or "all"
            raise ModelError(f"input {value.name!r} has dynamic extents ({symbols}) in {text}; give its shape with"
                             f" --shapes {value.name}:[{','.join(_suggestion(dims))}]")  # fmt: skip
        return
    if any(extent < 0 for extent in shape):
        raise ModelError(f"--shapes gives input {value.name!r} {list(shape)}; every extent must be 0 or more")
    if known and (len(shape) != len(dims) or any(dim not in (s, str(dim)) for dim, s in zip(dims, shape, strict=True))):
        raise ModelError(f"--shapes gives input {value.name!r} {list(shape)}, but the model says {text}")
    del value.type.tensor_type.shape.dim[:]
    for extent in shape:
        value.type.tensor_type.shape.dim.add().dim_value = extent


def _suggestion(dims: Sequence[int | str]) -> list[str]:
    return [str(dim) if isinstance(dim, int) else "1" if i == 0 else "N" for i, dim in enumerate(dims)]
