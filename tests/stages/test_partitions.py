"""Partitions by name and by axes, and the ranges by which Dagster is asked for some of them."""

from __future__ import annotations

import dagster as dg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safevid_core.settings import load_settings
from safevid_core.stages.partitions import (
    AXES,
    BY_LOSS_AND_SCENE,
    BY_POLICY_AND_SCALE,
    BY_SCENE,
    BY_SYSTEM_AND_BENCHMARK,
    ONE_TABLE,
    Partitions,
)
from safevid_core.stages.registry import Registry
from safevid_dagster.defs.assets import registry
from safevid_dagster.defs.partitions import definition_of, key_of, partition_of, ranges_of

SETTINGS = load_settings("pocket")
EVERY = [ONE_TABLE, BY_SCENE, BY_LOSS_AND_SCENE, BY_POLICY_AND_SCALE, BY_SYSTEM_AND_BENCHMARK]


@pytest.mark.parametrize("partitions", EVERY, ids=lambda each: "_".join(each.axes) or "whole")
def test_a_name_gives_back_the_values_of_its_axes(partitions: Partitions) -> None:
    names = partitions.names(SETTINGS)
    assert len(set(names)) == len(names)
    for name in names:
        values = partitions.values(name)
        assert tuple(values) == partitions.axes
        assert all(value in AXES[axis](SETTINGS) for axis, value in values.items())
        assert partitions.separator.join(values.values()) == name or not values


def test_a_system_may_hold_the_joint_of_other_partitions() -> None:
    assert BY_SYSTEM_AND_BENCHMARK.values("own_style@0.1|xstest") == {
        "system": "own_style@0.1",
        "benchmark": "xstest",
    }
    assert BY_POLICY_AND_SCALE.values("own_style@0.1") == {"policy": "own_style", "data_scale": "0.1"}


def test_a_name_with_too_few_parts_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"shorter|argument"):
        BY_LOSS_AND_SCENE.values("kitchen")


@pytest.mark.parametrize("of", EVERY, ids=lambda each: "_".join(each.axes) or "whole")
@pytest.mark.parametrize("partitions", EVERY, ids=lambda each: "_".join(each.axes) or "whole")
def test_upstream_partitions_share_the_values_of_common_axes(partitions: Partitions, of: Partitions) -> None:
    for name in partitions.names(SETTINGS)[::7]:
        values = partitions.values(name)
        expected = [
            each
            for each in of.names(SETTINGS)
            if all(values.get(axis, value) == value for axis, value in of.values(each).items())
        ]
        assert list(partitions.upstream(name, of, SETTINGS)) == expected


def expanded(method: Registry, name: str, some: list[str]) -> list[str]:
    """The partitions of a run that is asked for by its first and last key, as Dagster expands them."""
    stage = method[name]
    definition = definition_of(stage.partitions.axes)
    assert definition is not None
    between = dg.PartitionKeyRange(str(key_of(stage, some[0])), str(key_of(stage, some[-1])))
    return [partition_of(stage, key) for key in definition.get_partition_keys_in_range(between)]


@pytest.mark.parametrize("name", ["descriptions", "lossy_pairs", "dpo_checkpoint", "benchmark_responses"])
@given(data=st.data())
def test_ranges_cover_exactly_the_partitions(name: str, data: st.DataObject) -> None:
    stage = registry[name]
    every = stage.partitions.names(SETTINGS)
    axes = [
        data.draw(st.sets(st.sampled_from(list(AXES[axis](SETTINGS))), min_size=1))
        for axis in stage.partitions.axes
    ]
    block = [
        each
        for each in every
        if all(
            value in some for value, some in zip(stage.partitions.values(each).values(), axes, strict=True)
        )
    ]
    odd = data.draw(st.lists(st.sampled_from(every), max_size=3))
    wanted = data.draw(st.permutations(sorted({*block, *odd})))
    found = [each for some in ranges_of(stage, wanted, SETTINGS) for each in expanded(registry, name, some)]
    assert sorted(found) == sorted(wanted)


@pytest.mark.parametrize("name", ["descriptions", "lossy_pairs", "dpo_checkpoint", "benchmark_scores"])
def test_all_partitions_are_one_range(name: str) -> None:
    every = registry[name].partitions.names(SETTINGS)
    assert [sorted(some) for some in ranges_of(registry[name], every, SETTINGS)] == [sorted(every)]


def test_a_table_of_one_partition_is_one_range_without_a_key() -> None:
    split = registry["corpus_split"]
    assert list(ranges_of(split, ["all"], SETTINGS)) == [["all"]]
    assert key_of(split, "all") is None


def test_neighbouring_scenes_are_one_range_and_others_are_not() -> None:
    scenes = BY_SCENE.names(SETTINGS)
    some = [scenes[place] for place in (5, 0, 1, 9, 6)]
    cut = [list(each) for each in ranges_of(registry["descriptions"], some, SETTINGS)]
    assert cut == [scenes[0:2], scenes[5:7], scenes[9:10]]
