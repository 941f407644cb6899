"""Partition: the five heuristics, and shares that balance."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npu_backend.cost import CostModel
from npu_backend.ops.attributes import MatMulAttributes, PoolAttributes, ReshapeAttributes, SoftmaxAttributes
from npu_backend.passes.partition import partition
from npu_backend.passes.shares import balanced_shares
from npu_backend.stages import Split
from npu_backend.strategies import STRATEGIES
from tests.passes.networks import Network, machine, one_layer


def split(make: Callable[[Network], str], strategy: str = "base", cores: int = 3) -> Split:
    """The split of the last layer."""
    return partition(one_layer(make), CostModel(machine(cores=cores)), STRATEGIES[strategy]).splits[-1]


def deep(net: Network) -> str:
    return net.conv(net.source((1, 14, 14, 64)), 512, (3, 3))


def large(net: Network) -> str:
    return net.conv(net.source((1, 56, 56, 16)), 32, (3, 3))


def product(net: Network, left: tuple[int, ...], right: tuple[int, ...], output_axes: tuple[int, ...] = ()) -> str:
    attributes = MatMulAttributes(output_axes=output_axes)
    return net.add("matmul", net.source(left), net.source(right, "x2"), attributes=attributes)


def reshaped(net: Network, rows: int, shape: tuple[int, ...]) -> str:
    """Of a layer that is divided by rows where there are many, else by channels."""
    return net.add("reshape", net.dense(net.source((1, rows, 64)), 64), attributes=ReshapeAttributes(shape))


HEURISTICS: dict[str, tuple[Callable[[Network], str], str, str]] = {
    "h1": (large, "rows", "h1: spatial"),
    "h1-channels-indivisible": (lambda net: net.conv(net.source((1, 30, 30, 16)), 16), "rows",
                                "h1: spatial, channels cannot be divided"),
    "h1-columns": (lambda net: net.conv(net.source((1, 1, 300, 32)), 32), "columns", "h1: spatial"),
    "h2": (deep, "channels", "h2: "),
    "h3-no-rows": (lambda net: net.dense(net.source((1, 64)), 100), "channels", "h3: too shallow"),
    "h3-few-rows": (lambda net: net.conv(net.source((1, 2, 200, 32)), 32), "channels", "h3: 2 rows for 3 cores"),
    "h4": (lambda net: net.conv(net.source((1, 30, 30, 64)), 64, (3, 3), groups=64), "channels", "h4: conv2d"),
    "h4-pool": (lambda net: net.add("pool2d", net.source((1, 30, 30, 64)),
                                    attributes=PoolAttributes("maximum", (2, 2), (2, 2))), "channels", "h4: pool2d"),
    "h4-kept-rows": (lambda net: net.conv(net.conv(net.source((1, 56, 56, 32)), 64), 64, (3, 3), groups=64), "rows",
                     "h1: spatial"),
    "h2-product": (lambda net: product(net, (1, 40, 64), (64, 200)), "channels", "h2: 12800 weight bytes, 2560 input"),
    "h1-product": (lambda net: product(net, (1, 400, 64), (64, 64)), "rows", "h1: spatial"),
    "h1-heads": (lambda net: product(net, (1, 4, 40, 64), (1, 4, 64, 40)), "rows", "h1: spatial"),
    "h1-heads-inside": (lambda net: product(net, (1, 4, 40, 64), (1, 4, 64, 40), (0, 2, 1, 3)), "columns",
                        "h1: spatial"),
    "elements-channels": (lambda net: reshaped(net, 20, (1, 20, 4, 16)), "columns", "where its elements are"),
    "elements-rows": (lambda net: reshaped(net, 200, (1, 20, 10, 64)), "rows", "where its elements are"),
    "h5": (lambda net: net.conv(net.source((1, 12, 40, 8)), 32, (9, 1)), "channels", "h5: halo of 8 for 4 rows"),
}  # fmt: skip


@pytest.mark.parametrize("name", HEURISTICS)
def test_heuristics(name: str) -> None:
    make, direction, reason = HEURISTICS[name]
    result = split(make, "halo")
    assert (result.direction, result.reason[: len(reason)]) == (direction, reason)


@pytest.mark.parametrize(("heads", "direction"), [(7, "rows"), (3, "channels")])
def test_few_rows_give_way_to_channels_only_if_those_have_as_many_parts(heads: int, direction: str) -> None:
    """Forty columns are three blocks of sixteen."""
    fused = one_layer(lambda net: product(net, (1, heads, 40, 64), (1, heads, 64, 40)))
    assert partition(fused, CostModel(machine("mesh16", 8)), STRATEGIES["base"]).splits[0].direction == direction


def test_strategies_that_name_a_direction() -> None:
    assert split(deep, "spatial").direction == "rows"
    assert split(large, "channel").direction == "channels"
    assert split(large, "single").boxes[1:] == (None, None)
    assert split(large, "spatial", cores=1).reason == "one core"


def test_what_cannot_be_divided_that_way_is_divided_otherwise() -> None:
    def narrow(net: Network) -> str:
        return net.conv(net.source((1, 30, 30, 16)), 8)

    result = split(narrow, "channel")
    assert (result.direction, result.reason) == ("rows", "channels cannot be divided")


def test_what_is_indivisible_runs_on_one_core_or_on_all_that_read_it() -> None:
    def alone(net: Network) -> str:
        return net.add("softmax", net.source((1, 40)), attributes=SoftmaxAttributes(1))

    def read(net: Network) -> str:
        return net.dense(alone(net), 100)

    assert split(alone).boxes[1:] == (None, None)

    fused = one_layer(read)
    splits = partition(fused, CostModel(machine(cores=3)), STRATEGIES["base"]).splits
    assert splits[0].direction == "replicated"
    assert splits[0].boxes == (fused.output(fused.layers[0]).box,) * 3


def test_a_faster_core_gets_a_larger_share() -> None:
    big, little = partition(one_layer(large), CostModel(machine("biglittle", 2)), STRATEGIES["spatial"]).splits[0].boxes
    assert big is not None
    assert little is not None
    assert big.size > little.size


times = st.lists(st.floats(0.1, 100), min_size=1, max_size=16)


@given(st.integers(1, 3000), times)
def test_shares_add_up_and_no_unit_is_better_elsewhere(units: int, unit_times: list[float]) -> None:
    shares = balanced_shares(units, unit_times)
    assert sum(shares) == units
    assert min(shares) >= 0
    slowest = max(share * time for share, time in zip(shares, unit_times, strict=True))
    soonest = min((share + 1) * time for share, time in zip(shares, unit_times, strict=True))
    assert slowest <= soonest * (1 + 1e-9)


@given(st.integers(1, 500), st.integers(1, 16))
def test_equal_cores_get_equal_shares(units: int, cores: int) -> None:
    shares = balanced_shares(units, [3.0] * cores)
    assert max(shares) - min(shares) <= 1


def test_the_paper_divides_channelwise_layers_by_channels_where_maps_do_not_stay() -> None:
    make = HEURISTICS["h4-kept-rows"][0]
    assert (split(make, "base").direction, split(make, "halo").direction) == ("channels", "rows")
