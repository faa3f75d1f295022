"""The query plan: one walk a clip, cells balanced over subcategories and styles, a table that others read."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from safevid_core.contracts.rows import DescribedClip, rows_of
from safevid_core.contracts.tables import DESCRIPTIONS, QUERY_PLAN
from safevid_core.models.llm import ChatAnswer, Gateway
from safevid_core.pocket.scripted import asker
from safevid_core.queries.cells import Ground, PlanCell, plan_cells
from safevid_core.queries.plan import read_plan, walk_request
from safevid_core.queries.styles import STYLES, StyleError
from safevid_core.settings import Settings, load_settings
from safevid_core.storage.lake import Lake
from safevid_core.storage.manifest import NothingMade
from safevid_core.taxonomy.taxonomy import Taxonomy, load_taxonomy
from tests.models.chat_server import ChatServer, says
from tests.queries import commit, described, planned, settings_at
from tests.stages import planner_of, run_stage

WHOLE_TAXONOMY = load_taxonomy()
ANSWER = ChatAnswer("key", "{}", "ok", "", False, 0.0, 0, 0, model="m", revision="1")


def with_queries(**queries: Any) -> Settings:
    return load_settings("pocket", overrides={"queries": queries})


def clips_of(*clip_ids: str, twins: Sequence[str] = ()) -> list[DescribedClip]:
    rows = [
        {"clip_id": each, "scene": "kitchen", "text": each, "twin_group": "t" if each in twins else None}
        for each in clip_ids
    ]
    return rows_of(DESCRIPTIONS.frame(rows), DescribedClip)


def everything(use: str = "harmful", taxonomy: Taxonomy = WHOLE_TAXONOMY) -> list[Ground]:
    return [
        Ground.model_validate({"subcategory": each.id, "use": use, "ground": "seen"})
        for each in taxonomy.subcategories
    ]


def cells_of(
    grounds: Mapping[str, Sequence[Ground]], settings: Settings, clips: Sequence[DescribedClip] | None = None
) -> list[PlanCell]:
    walks = {clip_id: (found, ANSWER) for clip_id, found in grounds.items()}
    return plan_cells(
        clips_of(*grounds) if clips is None else clips, walks, settings, WHOLE_TAXONOMY, "train"
    )


# ----------------------------------------------------------------------------------------- the cells

shares = st.dictionaries(
    st.sampled_from([style for style in STYLES if style != "implicit"]),
    st.floats(0, 10).filter(lambda share: share == 0 or share > 0.01),
    min_size=1,
).filter(lambda found: sum(found.values()) > 0)


@given(shares, st.integers(5, 30), st.sampled_from(["harmful", "benign"]))
@hypothesis_settings(max_examples=40, deadline=None)
def test_the_styles_of_a_kind_keep_their_shares(styles: dict[str, float], clips: int, kind: str) -> None:
    """No style is ever two cells away from its share, however the shares are chosen."""
    settings = with_queries(styles=styles, mix=[kind], subcategories_per_clip=3)
    cells = cells_of({f"c{place:02}": everything() for place in range(clips)}, settings)
    assert len(cells) == 3 * clips
    whole = sum(styles.values())
    counts = Counter(cell.style for cell in cells)
    for style, share in styles.items():
        assert abs(counts[style] - share / whole * len(cells)) < 2, (style, counts)
        assert counts[style] == 0 or share > 0


@given(
    st.lists(
        st.sampled_from(["implicit", "harmful", "benign", "premise", "question"]), min_size=1, max_size=6
    ),
    st.integers(1, 40),
    st.integers(1, 12),
)
@hypothesis_settings(max_examples=40, deadline=None)
def test_the_mix_repeats_and_no_cell_does(mix: list[str], wanted: int, clips: int) -> None:
    settings = with_queries(mix=mix, subcategories_per_clip=wanted)
    cells = cells_of({f"c{place:02}": everything() for place in range(clips)}, settings)
    assert len({cell.plan_id for cell in cells}) == len(cells)
    per_clip = Counter(cell.clip_id for cell in cells)
    assert max(per_clip.values()) <= wanted
    # There is ground for 11 questions and 11 premises, and for 41 of every other kind.
    assert min(per_clip.values()) >= min(wanted, 11)


@given(st.integers(2, 20), st.integers(1, 12))
@hypothesis_settings(max_examples=25, deadline=None)
def test_the_subcategories_of_a_kind_are_used_evenly(clips: int, wanted: int) -> None:
    settings = with_queries(mix=["premise"], subcategories_per_clip=min(wanted, 11))
    cells = cells_of({f"c{place:02}": everything() for place in range(clips)}, settings)
    used = Counter({each.id: 0 for each in WHOLE_TAXONOMY.of_principle("honest")})
    used.update(cell.subcategory for cell in cells)
    assert max(used.values()) - min(used.values()) <= 1


@given(st.permutations(["c0", "c1", "c2", "c3"]))
def test_a_plan_does_not_rest_on_the_order_of_the_clips(order: list[str]) -> None:
    settings = with_queries(subcategories_per_clip=9)
    one = cells_of({each: everything() for each in sorted(order)}, settings)
    other = cells_of({each: everything() for each in order}, settings, clips_of(*order))
    assert set(one) == set(other)


def test_harmful_queries_are_about_what_can_be_misused() -> None:
    found = everything("benign")
    found[20:40] = everything("harmful")[20:40]
    cells = cells_of({"c": found}, with_queries(mix=["implicit", "harmful"], subcategories_per_clip=8))
    misused = {each.subcategory for each in found if each.use == "harmful"}
    assert {cell.subcategory for cell in cells} <= misused
    assert not any(cell.benign for cell in cells)


def test_without_anything_to_misuse_the_implicit_query_is_the_benign_one() -> None:
    cells = cells_of({"c": everything("benign")}, with_queries(mix=["implicit"], subcategories_per_clip=4))
    assert [cell.benign for cell in cells] == [True] * 4


def test_a_premise_needs_a_possible_false_claim() -> None:
    settings = with_queries(mix=["premise"], subcategories_per_clip=4)
    assert cells_of({"c": everything("benign")}, settings) == []
    assert len(cells_of({"c": everything("harmful")}, settings)) == 4


def test_each_implicit_cell_is_mirrored_to_every_other_twin_that_was_walked() -> None:
    clips = clips_of("a", "b", "c", "d", twins=("a", "b", "c"))
    settings = with_queries(mix=["implicit"], subcategories_per_clip=2)
    grounds = {each: everything() for each in ("a", "b", "d")}  # the walk of c failed
    cells = cells_of(grounds, settings, clips)
    mirrored = [cell for cell in cells if cell.mirrored_from]
    assert Counter(cell.clip_id for cell in mirrored) == {"a": 2, "b": 2}
    by_id = {cell.plan_id: cell for cell in cells}
    assert all(by_id[cell.mirrored_from or ""].clip_id != cell.clip_id for cell in mirrored)
    off = with_queries(mix=["implicit"], subcategories_per_clip=2, mirror_twins=False)
    assert not any(cell.mirrored_from for cell in cells_of(grounds, off, clips))


def test_the_paper_asks_for_28_cells_a_clip_and_finds_them() -> None:
    paper = load_settings("paper")
    found = everything("harmful")
    cells = cells_of({f"c{place}": found for place in range(3)}, paper)
    assert len(cells) == 3 * 28
    assert len({cell.subcategory for cell in cells}) > 40
    assert {cell.style for cell in cells} >= set(paper.queries.styles)


# --------------------------------------------------------------------------------------- the styles


def test_a_style_without_a_definition_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    lake = Lake(tmp_path, "pocket")
    commit(lake, described(("kitchen",))[:2])
    for styles, message in (
        ({"flattery": 1}, "'flattery', which has no definition"),
        ({"implicit": 1}, "mix"),
    ):
        planner = planner_of(settings_at(tmp_path, styles=styles), lake)
        with pytest.raises(StyleError, match=message):
            planner.plan(planner.registry["query_plan"], "kitchen")


def test_a_style_of_ones_own_reaches_the_asker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []
    honest = asker.answer

    def listening(messages: list[dict[str, Any]]) -> str:
        asked.append(json.loads(messages[-1]["content"]))
        return honest(messages)

    monkeypatch.setattr(asker, "answer", listening)
    lake = Lake(tmp_path, "pocket")
    commit(lake, described(("kitchen",))[:4])
    own = {"flattery": "Praises the model before it asks."}
    settings = settings_at(tmp_path, styles={"flattery": 1}, style_definitions=own)
    run_stage(settings, lake, "query_plan", "kitchen")
    run_stage(settings, lake, "taxonomy_queries", "kitchen")
    asked_styles = [each["style"] for each in asked if "style" in each]
    assert {"id": "flattery", "definition": own["flattery"]} in asked_styles


@pytest.mark.parametrize("styles", [{}, {"direct": 0}, {"direct": -1, "disguised": 2}, ["direct"]])
def test_shares_that_say_nothing_are_refused(styles: Any) -> None:
    with pytest.raises(ValueError, match="styles"):
        with_queries(styles=styles)


# ---------------------------------------------------------------------------------------- the stage


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path, "pocket")


def walking(monkeypatch: pytest.MonkeyPatch, *replies: Any) -> None:
    """The asker gives these replies to walks, in the order of the clips' ids; the last one for all others."""
    left = list(replies)

    def answer(messages: list[dict[str, Any]]) -> str:
        reply = left.pop(0) if len(left) > 1 else left[0]
        return reply if isinstance(reply, str) else json.dumps({"grounds": reply})

    monkeypatch.setattr(asker, "answer", answer)


def test_a_walk_has_the_description_the_scene_and_every_subcategory(tmp_path: Path) -> None:
    settings = settings_at(tmp_path)
    taxonomy = load_taxonomy(settings)
    text = "A crowd watches a street fire."
    (clip,) = rows_of(DESCRIPTIONS.frame([{"clip_id": "a", "scene": "street", "text": text}]), DescribedClip)
    material = json.loads(walk_request(clip, settings.queries.asker, taxonomy).messages[-1]["content"])
    assert (material["description"], material["scene"]) == (clip.text, "street")
    assert [each["id"] for each in material["subcategories"]] == [each.id for each in taxonomy.subcategories]
    assert all(each["definition"] and each["hazard_in_time"] for each in material["subcategories"])


def test_the_committed_plan_is_the_one_that_is_read(lake: Lake, tmp_path: Path) -> None:
    settings = settings_at(tmp_path)
    commit(lake, described(("kitchen",)))
    report = run_stage(settings, lake, "query_plan", "kitchen")
    cells, rows = read_plan(lake, QUERY_PLAN, "kitchen"), lake.read(QUERY_PLAN, "kitchen")
    assert len(cells) == rows.height == report.manifest.info["cells"]
    assert {cell.plan_id for cell in cells} == set(rows["plan_id"])
    assert sum(cell.mirrored_from is not None for cell in cells) == report.manifest.info["mirrored"] > 0
    assert (rows.filter(pl.col("mirrored_from").is_null())["ground"] != "").all()
    own = Counter(cell.clip_id for cell in cells if cell.mirrored_from is None)
    assert set(own.values()) == {settings.queries.subcategories_per_clip}
    planner = planner_of(settings, lake)
    plan = planner.plan(planner.registry["taxonomy_queries"], "kitchen")
    assert list(plan.units) == [cell.plan_id for cell in cells]
    asked = {questions.model.model: questions.count for questions in plan.questions}  # type: ignore[union-attr]
    assert asked == {"scripted/asker": len(cells), "scripted/rater": 2 * len(cells)}


def test_a_scene_is_planned_without_looking_at_another(tmp_path: Path) -> None:
    settings, rows = settings_at(tmp_path), described(("kitchen", "farm"))
    kitchen = [row for row in rows if row["scene"] == "kitchen"]
    ids = {row["clip_id"] for row in kitchen}
    assert set(planned(kitchen, settings)) == {c for c in planned(rows, settings) if c.clip_id in ids}


def test_the_two_phrasings_share_no_cell(tmp_path: Path) -> None:
    settings, rows = settings_at(tmp_path), described(("kitchen",))
    train, held_out = (
        {cell.plan_id for cell in planned(rows, settings, each)} for each in ("train", "held_out")
    )
    assert train
    assert held_out
    assert not train & held_out


def test_a_plan_asks_for_no_more_than_has_ground(tmp_path: Path) -> None:
    plan = planned(described(("kitchen",)), settings_at(tmp_path, subcategories_per_clip=28))
    per_clip = Counter(cell.clip_id for cell in plan if cell.mirrored_from is None)
    assert min(per_clip.values()) >= 12
    assert max(per_clip.values()) <= 28


def test_a_clip_whose_walk_cannot_be_read_ends_with_its_reason(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its twin keeps its own cells, and none is mirrored to it."""
    rows = described(("kitchen",))
    twin = next(row for row in rows if row["twin_group"])
    honest = asker.answer

    def deaf_to_one(messages: list[dict[str, Any]]) -> str:
        return "no" if twin["text"] in messages[1]["content"] else honest(messages)

    monkeypatch.setattr(asker, "answer", deaf_to_one)
    commit(lake, rows)
    report = run_stage(settings_at(tmp_path), lake, "query_plan", "kitchen")
    outcomes = lake.outcomes("query_plan")
    assert report.manifest.outcomes["failed"] == 1
    (reason,) = outcomes.filter(pl.col("outcome") == "failed")["reason"]
    assert "does not fit Walked" in reason
    assert twin["clip_id"] not in set(lake.read(QUERY_PLAN)["clip_id"])


def plan_two_walks(
    lake: Lake, root: Path, monkeypatch: pytest.MonkeyPatch, *grounds: Sequence[Mapping[str, str]]
) -> None:
    """Make the plan of two clips without twins, whose walks find these grounds."""
    walking(monkeypatch, *grounds)
    commit(lake, [{**row, "twin_group": None} for row in described(("kitchen",))[:2]])
    settings = load_settings("pocket", overrides={"root": str(root), "models": {"concurrency": 1}})
    run_stage(settings, lake, "query_plan", "kitchen", Gateway(settings))


@pytest.mark.parametrize(
    ("bad", "message", "failed"),
    [
        (
            {"subcategory": "jaywalking", "use": "harmful", "ground": "a street"},
            "",
            "the asker named unknown subcategories only: jaywalking",
        ),
        (
            {"subcategory": "dangerous_acts", "use": "dangerous", "ground": "a railing"},
            "a ground that the asker names cannot be read: use: Input should be",
            "no item of grounds fits; the first: use: Input should be",
        ),
    ],
    ids=["unknown subcategory", "unreadable"],
)
def test_a_bad_ground_is_left_out_and_alone_it_fails_the_clip(
    bad: dict[str, str],
    message: str,
    failed: str,
    lake: Lake,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = {"subcategory": "hate_speech", "use": "harmful", "ground": "a sign"}
    plan_two_walks(lake, tmp_path, monkeypatch, [bad, known], [bad])
    assert set(lake.read(QUERY_PLAN)["subcategory"]) == {"hate_speech"}
    reasons = dict(lake.outcomes("query_plan").select("outcome", "reason").iter_rows())
    assert message in reasons["ok"]
    assert failed in reasons["failed"]


def test_a_clip_without_a_cell_is_not_called_groundless_if_a_ground_could_not_be_read(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An honest subcategory without a possible false claim gives no premise; the bad ground might have."""
    weak = {"subcategory": "factuality_hallucination", "use": "benign", "ground": "a clock"}
    walking(monkeypatch, [weak, {"subcategory": "hate_speech"}])
    commit(lake, described(("kitchen",))[:1])
    with pytest.raises(NothingMade, match="no ground that could be read gives a query; a ground that the"):
        run_stage(settings_at(tmp_path), lake, "query_plan", "kitchen")


def test_a_provider_that_refuses_walks_is_reported_of(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fifth of the walks may be refused. More would take one kind of clip out of the data."""
    rows = described(("kitchen",))
    server = ChatServer()
    hosted = {"model": "openai/loopback", "family": "loopback", "api_base": server.url}
    settings = settings_at(tmp_path, asker=hosted)
    commit(lake, rows)
    refused, nothing = says("", finish_reason="content_filter"), says('{"grounds": []}')
    server.queue(*(nothing if place % 3 else refused for place in range(len(rows))))
    report = run_stage(settings, lake, "query_plan", "kitchen")
    server.close()
    assert report.manifest.outcomes["undecidable"] == 6
    assert report.manifest.info["refusals"] == {"the walk": [18, 6]}
    planner = planner_of(settings, lake)
    stage = planner.registry["query_plan"]
    (check,) = stage.checks
    finding = check.run(planner.tools, stage, ["kitchen"])
    assert finding.problems == ("the walk: 6 of 18 refused; ask another model, or name a `second`",)


def test_a_subcategory_that_is_named_twice_counts_once(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = {"subcategory": "hate_speech", "use": "harmful", "ground": "a sign"}
    walking(monkeypatch, [first, {**first, "use": "benign", "ground": "a flag"}])
    commit(lake, described(("kitchen",))[:1])
    run_stage(settings_at(tmp_path), lake, "query_plan", "kitchen")
    assert set(lake.read(QUERY_PLAN)["ground"]) == {"a sign"}


@pytest.mark.parametrize(
    ("change", "stale"),
    [
        ({"subcategories_per_clip": 5}, {"query_plan"}),
        ({"styles": {"direct": 1}}, {"query_plan"}),
        ({"mix": ["implicit", "question"]}, {"query_plan"}),
        ({"mirror_twins": False}, {"query_plan"}),
        ({"candidates": 1}, {"taxonomy_queries"}),
        ({"min_fit": 4}, {"taxonomy_queries"}),
        ({"rater": {"revision": "2"}}, {"taxonomy_queries"}),
        ({"asker": {"revision": "2"}}, {"query_plan", "taxonomy_queries"}),
    ],
)
def test_each_setting_makes_stale_what_depends_on_it(
    change: dict[str, Any], stale: set[str], lake: Lake, tmp_path: Path
) -> None:
    commit(lake, described(("kitchen",))[:4])
    settings = settings_at(tmp_path)
    stages = ("query_plan", "taxonomy_queries")
    for stage in stages:
        run_stage(settings, lake, stage, "kitchen")
    planner = planner_of(settings_at(tmp_path, **change), lake)
    found = {
        stage for stage in stages if planner.state(planner.registry[stage], "kitchen").condition == "stale"
    }
    assert found == stale
