"""The allocation of a target: its sums and bounds hold on any corpus, and on small ones it is the best."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from safevid_core.contracts.tables import PAIR_YIELD
from safevid_core.queries.allocation import Allocation, allocate, even_portions
from safevid_core.queries.allocation_program import AllocationError, Problem, Stratum, queries_per_pair
from safevid_core.queries.pair_allocation import problem_of
from safevid_core.settings import Settings, SettingsError, load_settings
from safevid_core.taxonomy.taxonomy import load_scenes, load_taxonomy

NOTHING = PAIR_YIELD.frame([]).select("stratum_id", "clips", "grounded", "planned_queries", "released")
KINDS = (
    ("harmless", "d1", "a", "direct", "refuse"),
    ("harmless", "d1", "a", "direct", "answer"),
    ("harmless", "d1", "b", "direct", "refuse"),
    ("harmless", "d2", "c", "direct", "answer"),
    ("honest", "d3", "d", "direct", "correct"),
    ("helpful", "d4", "e", "direct", "answer"),
)


def problem(
    target: int,
    strata: list[Stratum],
    grounded: list[int],
    survival: list[float],
    clips: dict[str, int],
    *,
    benign: float = 0.5,
    floors: dict[str, float] | None = None,
    caps: dict[str, float] | None = None,
    per_clip: int = 60,
) -> Problem:
    """A problem in which all strata have the same share, but for the benign share."""
    kinds = Counter((stratum.principle, stratum.expectation) for stratum in strata)
    harmful, answers = kinds["harmless", "refuse"], kinds["harmless", "answer"]

    def share(stratum: Stratum) -> float:
        if stratum.principle != "harmless" or not harmful or not answers:
            return 1.0
        side, number = (benign, answers) if stratum.expectation == "answer" else (1 - benign, harmful)
        return side * (harmful + answers) / number

    shares = np.array([share(stratum) for stratum in strata])
    return Problem(
        target, tuple(strata), tuple(shares / shares.sum()), tuple(grounded), tuple(survival),
        tuple(clips.items()), benign, tuple((floors or {}).items()), tuple((caps or {}).items()), per_clip,
    )  # type: ignore[arg-type]  # fmt: skip


@st.composite
def problems(draw: st.DrawFn, most_strata: int = 12, most: int = 40, whole: bool = False) -> Problem:
    scenes = draw(st.sampled_from([("s",), ("s", "t"), ("s", "t", "u")]))
    every = [Stratum(scene, *kind) for scene in scenes for kind in KINDS]
    chosen = draw(st.lists(st.sampled_from(every), min_size=1, max_size=most_strata, unique=True))
    strata = sorted(chosen)
    clips = {scene: draw(st.integers(1, most)) for scene in scenes}
    grounded = [draw(st.integers(0, clips[stratum.scene])) for stratum in strata]
    shares = st.just(1.0) if whole else st.sampled_from([0.4, 0.5, 0.7, 0.9, 1.0])
    survival = [draw(shares) for _ in strata]
    return problem(
        draw(st.integers(1, most * len(strata))), strata, grounded, survival, clips,
        benign=draw(st.sampled_from([0.25, 0.5, 0.7])),
        floors=draw(st.sampled_from([{}, {"subcategory": 0.5}, {"stratum": 0.3, "scene": 0.8}])),
        caps=draw(
            st.sampled_from([{}, {"stratum": 2.0}, {"stratum": 3.0, "scene": 1.2, "subcategory": 1.5}])
        ),
        per_clip=draw(st.integers(1, 12)),
    )  # fmt: skip


def benign_excess(given_: Problem, planned: np.ndarray) -> float:
    """Benign pairs beyond their share of the pairs of harmless subcategories."""
    harmless = [place for place, stratum in enumerate(given_.strata) if stratum.principle == "harmless"]
    benign = [place for place, stratum in enumerate(given_.strata) if stratum.benign]
    return float(planned[benign].sum() - given_.benign_share * planned[harmless].sum())


def has_both_sides(given_: Problem) -> bool:
    kinds = {(stratum.principle, stratum.expectation) for stratum in given_.strata}
    return {("harmless", "refuse"), ("harmless", "answer")} <= kinds


def check(given_: Problem, found: Allocation) -> None:
    """What holds for every allocation."""
    assert found.portion.sum() == given_.target
    assert found.planned.sum() + found.shortage.sum() == given_.target
    assert (found.planned >= 0).all()
    assert (found.planned <= np.minimum(found.capacity, found.cap)).all()
    assert (found.asked <= np.array(given_.grounded)).all()
    asked: Counter[str] = Counter()
    planned: dict[tuple[str, str], int] = defaultdict(int)
    portions: dict[tuple[str, str], int] = defaultdict(int)
    for stratum, queries, pairs, portion in zip(
        given_.strata, found.asked, found.planned, found.portion, strict=True
    ):
        asked[stratum.scene] += int(queries)
        planned[stratum.principle, stratum.expectation] += int(pairs)
        portions[stratum.principle, stratum.expectation] += int(portion)
    for scene, clips in given_.clips:
        assert asked[scene] <= given_.queries_per_clip * clips, "no clip beyond its cap"
    for kind, pairs in planned.items():
        assert pairs <= portions[kind], "a neighbour has the same principle and expectation"
    if has_both_sides(given_):
        assert abs(benign_excess(given_, found.planned)) <= 0.5 + 1e-6
    for axis, share in given_.caps:
        for value in {getattr(stratum, axis, None) for stratum in given_.strata} if axis != "stratum" else ():
            some = [place for place, stratum in enumerate(given_.strata) if getattr(stratum, axis) == value]
            assert found.planned[some].sum() <= np.ceil(share * found.portion[some].sum() - 1e-6)
    assert bool(found.problems) >= bool(found.shortage.sum()), "a shortage is reported"


def check_refills(given_: Problem, found: Allocation) -> None:
    """Portion, refills and shortage of each stratum add up, and each neighbour is what its rule says."""
    balance = found.portion - found.shortage
    for refill in found.refills:
        short, neighbour = given_.strata[refill.short], given_.strata[refill.neighbour]
        assert (short.principle, short.expectation) == (neighbour.principle, neighbour.expectation)
        assert refill.pairs > 0
        same = (short.scene, short.dimension) == (neighbour.scene, neighbour.dimension)
        if refill.tier == "same dimension, same scene":
            assert same
        elif refill.tier == "same subcategory, other scene":
            assert short.subcategory == neighbour.subcategory
            assert not same
        else:
            assert short.subcategory != neighbour.subcategory
            assert not same
        balance[refill.short] -= refill.pairs
        balance[refill.neighbour] += refill.pairs
    assert (balance == found.planned).all()


@given(problems())
@hypothesis_settings(max_examples=150)
def test_sums_bounds_and_refills_hold(given_: Problem) -> None:
    found = allocate(given_)
    check(given_, found)
    check_refills(given_, found)


@given(problems(), st.integers(0, 11), st.integers(1, 10))
@hypothesis_settings(max_examples=60)
def test_more_capacity_never_gives_fewer_pairs(given_: Problem, place: int, more: int) -> None:
    """Without floors, which come before the sum, and where every query gives a pair."""
    given_ = replace(given_, floors=(), survival=(1.0,) * len(given_.strata))
    place %= len(given_.strata)
    clips = dict(given_.clips)[given_.strata[place].scene]
    grounded = list(given_.grounded)
    grounded[place] = min(grounded[place] + more, clips)
    richer = replace(given_, grounded=tuple(grounded))
    assert allocate(richer).planned.sum() >= allocate(given_).planned.sum()


def best_by_trial(given_: Problem, found: Allocation) -> int:
    """The largest sum of pairs over every allocation that keeps the bounds."""
    portions: dict[tuple[str, str], int] = defaultdict(int)
    for stratum, portion in zip(given_.strata, found.portion, strict=True):
        portions[stratum.principle, stratum.expectation] += int(portion)
    ranges = [range(int(min(most, cap)) + 1) for most, cap in zip(found.capacity, found.cap, strict=True)]
    best = 0
    for tried in product(*ranges):
        pairs = np.array(tried)
        queries: dict[str, float] = defaultdict(float)
        sums: dict[tuple[str, str], int] = defaultdict(int)
        for stratum, number, rate in zip(given_.strata, tried, queries_per_pair(given_), strict=True):
            queries[stratum.scene] += number * rate
            sums[stratum.principle, stratum.expectation] += number
        fits = all(queries[scene] <= given_.queries_per_clip * n + 1e-9 for scene, n in given_.clips)
        fits = fits and all(sums[kind] <= portions[kind] for kind in sums)
        if has_both_sides(given_):
            fits = fits and abs(benign_excess(given_, pairs)) <= 0.5 + 1e-9
        if fits:
            best = max(best, int(pairs.sum()))
    return best


@given(problems(most_strata=4, most=5, whole=True))
@hypothesis_settings(max_examples=80)
def test_where_every_query_gives_a_pair_no_allocation_gives_more(given_: Problem) -> None:
    given_ = replace(given_, floors=(), caps=tuple(each for each in given_.caps if each[0] == "stratum"))
    found = allocate(given_)
    assert found.planned.sum() == best_by_trial(given_, found)


@given(problems(most_strata=4, most=5))
@hypothesis_settings(max_examples=80)
def test_otherwise_at_most_one_pair_a_scene_is_lost_by_rounding(given_: Problem) -> None:
    given_ = replace(given_, floors=(), caps=tuple(each for each in given_.caps if each[0] == "stratum"))
    found = allocate(given_)
    best = best_by_trial(given_, found)
    assert best - len(given_.clips) <= found.planned.sum() <= best


def test_the_nearest_neighbour_gives_what_a_cell_cannot() -> None:
    """Of 12 pairs of hate speech in the kitchen, 4 have ground; its dimension gives 5, another scene 3."""
    strata = [
        Stratum("kitchen", "harmless", "hate", "hate_speech", "direct", "refuse"),
        Stratum("kitchen", "harmless", "hate", "harassment", "direct", "refuse"),
        Stratum("street", "harmless", "hate", "hate_speech", "direct", "refuse"),
        Stratum("street", "harmless", "crime", "arson", "direct", "refuse"),
    ]
    found = allocate(
        problem(48, strata, [4, 17, 15, 40], [1.0] * 4, {"kitchen": 20, "street": 40}, per_clip=5)
    )
    assert found.planned.tolist() == [4, 17, 15, 12]
    assert [(refill.short, refill.neighbour, refill.pairs, refill.tier) for refill in found.refills] == [
        (0, 1, 5, "same dimension, same scene"),
        (0, 2, 3, "same subcategory, other scene"),
    ]
    assert found.problems == ()


def test_queries_are_asked_for_the_pairs_that_do_not_survive() -> None:
    strata = [Stratum("s", "helpful", "d", name, "direct", "answer") for name in "abc"]
    found = allocate(problem(30, strata, [40] * 3, [0.5, 0.8, 1.0], {"s": 40}))
    assert found.planned.tolist() == [10, 10, 10]
    assert found.asked.tolist() == [20, 13, 10], "42.5 queries of a scene are rounded up to 43 once"


# ---------------------------------------------------------------------------- targets that cannot be met


def two(**more: object) -> Problem:
    strata = [Stratum("s", "helpful", "d", name, "direct", "answer") for name in "ab"]
    return problem(100, strata, [100, 20], [0.5, 0.5], {"s": 100}, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("more", "lines"),
    [
        (
            {"per_clip": 1, "caps": {"stratum": 3.0}},
            [
                "datasets.target_pairs is 100, and 50 can be planned, 50 fewer",
                "the target needs 200 queries at the expected survival, 2.0 for each of 100 clips, and "
                "datasets.allocation.queries_per_clip is 1; raise it to 2, or add clips",
            ],
        ),
        (
            {"floors": {"subcategory": 0.8}},
            [
                "subcategory b: 10 pairs can be planned, 30 fewer than its floor of 40; its clips give at "
                "most 10; lower datasets.allocation.floors.subcategory",
                "datasets.target_pairs is 100, and 60 can be planned, 40 fewer",
                "the clips give ground for 60 pairs, 60 of them within the caps of the strata; add clips",
            ],
        ),
        (
            {"floors": {"subcategory": 1.5}},
            [
                "the floors of datasets.allocation.floors.subcategory sum to 150 pairs, 50 more than the "
                "target of 100; give at most 1"
            ],
        ),
        (
            {"caps": {"subcategory": 0.5}},
            [
                "the caps of datasets.allocation.caps.subcategory sum to 50 pairs, 50 fewer than the target "
                "of 100; give at least 1"
            ],
        ),
        (
            {"floors": {"stratum": 0.5}},
            ["strata below their floors: 1, by 15 pairs; the first is s/b/direct/answer with 10 of 25"],
        ),
    ],
)
def test_a_target_that_cannot_be_met_names_the_constraint_and_the_amount(
    more: dict[str, object], lines: list[str]
) -> None:
    found = allocate(two(**more))
    told = "\n".join(found.problems)
    for line in lines:
        assert line in told


def test_a_corpus_without_training_clips_is_refused() -> None:
    strata = [Stratum("s", "helpful", "d", "a", "direct", "answer")]
    with pytest.raises(AllocationError, match="has 0 training clips"):
        allocate(problem(10, strata, [0], [1.0], {"s": 0}))


@pytest.mark.parametrize("target", [0, -3])
def test_a_target_below_one_is_one_clear_line(target: int) -> None:
    with pytest.raises(SettingsError) as raised:
        load_settings("pocket", overrides={"datasets": {"target_pairs": target}})
    assert str(raised.value) == (
        f"arguments: datasets.target_pairs: {target} pairs cannot be allocated; give at least "
        "1, or null for no target"
    )


def test_a_negative_floor_and_a_ground_share_above_one_are_refused() -> None:
    with pytest.raises(SettingsError, match="scene: -1 is negative"):
        load_settings("pocket", overrides={"datasets": {"allocation": {"floors": {"scene": -1}}}})
    with pytest.raises(SettingsError, match="honest: 2 is not a share; give 0 to 1"):
        load_settings("pocket", overrides={"datasets": {"allocation": {"ground_share": {"honest": 2}}}})


# ------------------------------------------------------------------------------------------ at full size


def paper(**allocation: object) -> tuple[Settings, dict[str, int]]:
    settings = load_settings("paper", overrides={"datasets": {"allocation": allocation}})
    scenes = load_scenes(settings).ids
    return settings, {scene: 412 + (place < 17) for place, scene in enumerate(scenes)}


def test_the_target_of_the_paper_is_met_over_all_cells() -> None:
    settings, clips = paper()
    assert sum(clips.values()) == 12_377
    given_ = problem_of(settings, load_taxonomy(settings), clips, NOTHING)
    assert len(given_.strata) == 30 * (41 * 8 * 2 + 11 + 11)
    found = allocate(given_)
    check(given_, found)
    check_refills(given_, found)
    assert found.planned.sum() == 350_000
    assert found.problems == ()
    assert 500_000 <= found.asked.sum() <= 500_030, "rounded up once a scene"
    again = allocate(given_)
    assert (again.planned == found.planned).all()


def test_where_the_clips_are_used_up_the_largest_plan_is_made() -> None:
    """36 queries of each clip, of which 70% survive: 311,900 pairs, less one a scene at most."""
    settings, clips = paper(queries_per_clip=36)
    given_ = problem_of(settings, load_taxonomy(settings), clips, NOTHING)
    found = allocate(given_)
    check(given_, found)
    assert 311_900 - 30 <= found.planned.sum() <= 311_900
    assert "raise it to 41" in "\n".join(found.problems)


@given(st.integers(1, 3_000), st.integers(0, 30), st.floats(0.05, 0.95))
@hypothesis_settings(max_examples=8)
def test_small_targets_are_spread_over_scenes(target: int, seed: int, benign: float) -> None:
    settings, clips = paper(benign_share=benign, floors={}, caps={})
    numbers = np.random.default_rng(seed).integers(1, 200, len(clips))
    clips = {scene: int(number) for scene, number in zip(clips, numbers, strict=True)}
    settings = settings.model_copy(
        update={"datasets": settings.datasets.model_copy(update={"target_pairs": target})}
    )
    given_ = problem_of(settings, load_taxonomy(settings), clips, NOTHING)
    portions = even_portions(given_)
    assert portions.sum() == target
    assert abs(benign_excess(given_, portions)) <= 0.5 + 1e-6
    of_scene: Counter[str] = Counter()
    for stratum, pairs in zip(given_.strata, portions, strict=True):
        of_scene[stratum.scene] += int(pairs)
    for scene, number in clips.items():
        # Each of the four pairs of principle and expectation is rounded within one pair of its share.
        assert abs(of_scene[scene] - target * number / sum(clips.values())) < 8
