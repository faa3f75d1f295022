"""The registry puts stages in order, finds them by name, and refuses those that do not fit together."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safevid_core.contracts.errors import SafeVidError
from safevid_core.pipeline import ExtensionError, build_registry
from safevid_core.settings import Settings, load_settings
from safevid_core.stages.partitions import BY_POLICY_AND_SCALE, BY_SCENE
from safevid_core.stages.registry import Registry, RegistryError
from safevid_core.stages.stage import Stage
from tests.stages.toy import stage

SETTINGS = load_settings("pocket")


def names(stages: list[Stage]) -> list[str]:
    return [each.name for each in stages]


@st.composite
def graphs(draw: st.DrawFn) -> list[Stage]:
    """Stages in any order, each of which may read those with a lower number."""
    count = draw(st.integers(1, 8))
    reads = [draw(st.sets(st.integers(0, number - 1))) if number else set() for number in range(count)]
    stages = [stage(f"s{number}", *(f"s{read}" for read in sorted(reads[number]))) for number in range(count)]
    return draw(st.permutations(stages))


@given(graphs())
def test_each_stage_comes_after_those_that_it_reads(stages: list[Stage]) -> None:
    registry = Registry(stages)
    assert sorted(each.name for each in registry) == sorted(each.name for each in stages)
    for each in registry:
        assert all(registry.order(read) < registry.order(each.name) for read in each.reads)


@given(graphs())
def test_the_order_is_stable(stages: list[Stage]) -> None:
    ordered = list(Registry(stages))
    assert list(Registry(stages)) == ordered
    assert list(Registry(ordered)) == ordered, "what is in order stays as it is"


@given(graphs())
def test_upstream_and_downstream_mirror_each_other(stages: list[Stage]) -> None:
    registry = Registry(stages)
    for one in registry:
        for other in registry:
            assert (other in registry.upstream([one.name])) == (one in registry.downstream([other.name]))
        assert one not in [*registry.upstream([one.name]), *registry.downstream([one.name])]


def test_of_stages_that_may_change_places_the_first_given_comes_first() -> None:
    given = [stage("z"), stage("late", "deep"), stage("a"), stage("deep", "a"), stage("b")]
    assert [each.name for each in Registry(given)] == ["z", "a", "deep", "late", "b"]


def test_a_circle_is_refused_with_its_stages() -> None:
    with pytest.raises(RegistryError, match=r"in a cycle: .*one.*two|in a cycle: .*two.*one"):
        Registry([stage("one", "two"), stage("two", "one"), stage("three")])


def test_a_stage_that_reads_itself_is_refused() -> None:
    with pytest.raises(RegistryError, match="cycle: one, one"):
        Registry([stage("one", "one")])


def test_a_read_that_is_no_stage_is_named_with_what_is_near() -> None:
    with pytest.raises(RegistryError, match=r"stage words reads descriptons; did you mean descriptions\?"):
        Registry([stage("descriptions"), stage("words", "descriptons")])


def test_two_stages_of_one_name_are_refused() -> None:
    with pytest.raises(RegistryError, match="two stages are named words; rename one of them"):
        Registry([stage("words"), stage("words")])


def test_a_stage_is_looked_up_by_name() -> None:
    registry = Registry([stage("words"), stage("counts", "words")])
    assert "words" in registry
    assert "word" not in registry
    assert len(registry) == 2
    with pytest.raises(RegistryError, match=r"no stage 'word'; did you mean words\?"):
        registry["word"]
    with pytest.raises(SafeVidError):
        registry.upstream(["nothing"])
    assert registry.order("nothing") == 2


@pytest.fixture(scope="module")
def registry() -> Registry:
    return build_registry(SETTINGS)


def test_a_scene_selects_its_partitions_on_every_axis(registry: Registry) -> None:
    chosen = registry.select(["lossy_pairs", "descriptions", "corpus_split"], SETTINGS, ["kitchen"])
    assert [each.name for each, _ in chosen] == ["corpus_split", "descriptions", "lossy_pairs"]
    partitions = {each.name: some for each, some in chosen}
    assert partitions["descriptions"] == ["kitchen"]
    assert partitions["corpus_split"] == ["all"]
    assert {name.partition("|")[2] for name in partitions["lossy_pairs"]} == {"kitchen"}


def test_a_whole_name_selects_one_partition(registry: Registry) -> None:
    (responses,) = registry.select(["benchmark_responses"], SETTINGS, ["pocket@1|safevidbench_base"])
    assert responses[1] == ["pocket@1|safevidbench_base"]
    (trained,) = registry.select(["dpo_checkpoint"], SETTINGS, ["pocket@0.1"])
    assert trained[1] == ["pocket@0.1"]


def test_without_names_the_flow_is_selected(registry: Registry) -> None:
    assert registry.select([], SETTINGS) == registry.flow(SETTINGS)
    everything = registry.select(["lossy_pairs"], SETTINGS)
    assert everything[0][1] == registry["lossy_pairs"].partitions.names(SETTINGS), "it is not in the flow"


@pytest.mark.parametrize(
    ("stages", "partitions", "line"),
    [
        (["descriptons"], None, r"no stage 'descriptons'; did you mean .*descriptions"),
        (["descriptions"], ["kichen"], r"no partition 'kichen' of descriptions; did you mean kitchen"),
        (["corpus_split"], ["kitchen"], r"no partition 'kitchen' of corpus_split; there are: all"),
    ],
)
def test_an_unknown_name_is_refused_with_what_is_near(
    registry: Registry, stages: list[str], partitions: list[str] | None, line: str
) -> None:
    with pytest.raises(RegistryError, match=line):
        registry.select(stages, SETTINGS, partitions)


def test_a_partition_is_made_from_those_with_its_values() -> None:
    stages = [
        stage("whole"),
        stage("scenes", partitions=BY_SCENE),
        stage("policies", "whole", "scenes", partitions=BY_POLICY_AND_SCALE),
        stage("described", "whole", "scenes", partitions=BY_SCENE),
        stage("report", "scenes", optional=frozenset({"scenes"})),
        stage(
            "chosen", "scenes", "whole", made_from=lambda settings, name: [("scenes", "sky"), ("whole", None)]
        ),
    ]
    registry = Registry(stages)

    def inputs(name: str, partition: str) -> list[str]:
        return [f"{each.name}[{part}]" for each, part in registry.inputs(registry[name], partition, SETTINGS)]

    def needed(name: str, partition: str) -> list[str]:
        return [f"{each.name}[{part}]" for each, part in registry.needed(registry[name], partition, SETTINGS)]

    assert inputs("described", "sky") == needed("described", "sky") == ["whole[all]", "scenes[sky]"]
    assert len(inputs("policies", "pocket@1")) == 31
    assert needed("policies", "pocket@1") == ["whole[all]"], "it takes the scenes that there are"
    assert len(inputs("report", "all")) == 30
    assert needed("report", "all") == []
    assert inputs("chosen", "all") == needed("chosen", "all") == ["scenes[sky]", "whole[all]"]


def test_a_module_that_adds_no_stages_is_named() -> None:
    def with_module(name: str) -> Settings:
        return SETTINGS.model_copy(update={"stages": [name]})

    with pytest.raises(ExtensionError, match="stages: module no_such_module cannot be imported"):
        build_registry(with_module("no_such_module"))
    with pytest.raises(ExtensionError, match="stages: module json has no tuple STAGES; give it one"):
        build_registry(with_module("json"))


def test_the_nearest_reads_leave_out_what_another_read_is_made_from() -> None:
    registry = build_registry(load_settings("pocket"))
    assert registry.nearest(registry["video_corpus"]) == ["corpus_split"]
    assert "descriptions" not in registry.nearest(registry["scorecard"])
    for each in registry:
        behind = {above.name for read in registry.nearest(each) for above in registry.upstream([read])}
        assert behind | set(registry.nearest(each)) == {
            above.name for above in registry.upstream([each.name])
        }
