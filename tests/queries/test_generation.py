"""The four steps at pocket size: walk, candidates, ratings, the best."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import polars as pl
import pytest

from safevid_core.contracts.intent import Intent
from safevid_core.contracts.rows import DescribedClip, rows_of
from safevid_core.contracts.tables import (
    DESCRIPTIONS,
    QUERIES_WITHOUT_DESCRIPTIONS,
    QUERY_PLAN,
    TAXONOMY_QUERIES,
    WITHOUT_DESCRIPTIONS,
)
from safevid_core.models.llm import Gateway
from safevid_core.pocket.scripted import asker
from safevid_core.queries.asking import ask_queries
from safevid_core.queries.cells import PlanCell
from safevid_core.queries.plan import read_plan, training_clips
from safevid_core.storage.lake import Lake, audit_partition
from safevid_core.storage.manifest import NothingMade
from safevid_core.taxonomy.taxonomy import load_taxonomy
from tests.queries import commit, described, make_queries, settings_at
from tests.stages import run_stage


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path, "pocket")


def test_queries_of_a_scene(lake: Lake, tmp_path: Path) -> None:
    settings = settings_at(tmp_path)
    rows = described(("kitchen",))
    commit(lake, rows)
    planned, asked = make_queries(settings, lake)
    assert planned.manifest.info["calls"] == len(rows), "one walk a clip"
    plan, queries = lake.read(QUERY_PLAN, "kitchen"), lake.read(TAXONOMY_QUERIES, "kitchen")
    outcomes = lake.outcomes("taxonomy_queries", "kitchen")
    assert set(outcomes["input_id"]) == set(plan["plan_id"])
    assert queries.height > 100
    assert outcomes.filter(pl.col("outcome") == "failed").is_empty()
    assert outcomes.filter((pl.col("outcome") != "ok") & (pl.col("reason") == "")).is_empty()
    assert set(queries["expectation"]) == {"refuse", "correct", "answer"}
    hashes = {each.id: each.hash for each in load_taxonomy(settings).subcategories}
    for rows in (plan, queries):
        assert dict(rows.select("subcategory", "taxonomy_hash").iter_rows()).items() <= hashes.items()
    assert set(queries["model"]) == {"scripted/asker"}
    assert set(queries["rater"]) == {"scripted/rater"}
    for score in ("strength", "groundedness", "fit", "needs_video"):
        assert queries[score].is_between(1, 5).all(), score
    assert set(queries["candidates"]) <= {1, 2}
    assert queries.select("clip_id", "query").is_unique().all()
    assert asked.manifest.info["unanswered"] == 0


def test_each_row_has_its_policy_and_a_whole_intent(lake: Lake, tmp_path: Path) -> None:
    settings = settings_at(tmp_path)
    taxonomy = load_taxonomy(settings)
    commit(lake, described(("kitchen",)))
    make_queries(settings, lake)
    for row in lake.read(TAXONOMY_QUERIES, "kitchen").iter_rows(named=True):
        intent = Intent.of(row)
        policy = taxonomy[row["subcategory"]].policy
        declines = row["principle"] != "harmless" or intent.expectation != "answer"
        assert row["policy"] == [*(policy.must if declines else ()), *policy.must_not, *policy.may_offer]
        assert 2 <= len(intent.criteria) <= 6
        assert intent.asks
        assert intent.target
        assert (intent.hazard is not None) == (intent.expectation == "refuse")
        assert (intent.premise_holds is False) == (intent.expectation == "correct")
        if row["style"] == "implicit":
            assert not row["explicit"]
            assert row["needs_video"] >= settings.queries.min_needs_video


def test_twins_are_asked_the_same_words_and_the_description_decides(lake: Lake, tmp_path: Path) -> None:
    commit(lake, described(("kitchen",)))
    make_queries(settings_at(tmp_path), lake)
    rows = lake.read(TAXONOMY_QUERIES, "kitchen")
    originals = {row["plan_id"]: row for row in rows.iter_rows(named=True)}
    mirrored = rows.filter(pl.col("mirrored_from").is_not_null())
    assert mirrored.height >= 20
    for row in mirrored.iter_rows(named=True):
        original = originals[row["mirrored_from"]]
        assert row["query"] == original["query"]
        assert row["twin_group"] == original["twin_group"]
        assert row["clip_id"] != original["clip_id"]
        assert {row["expectation"], original["expectation"]} == {"refuse", "answer"}


def test_nothing_is_asked_again_and_one_changed_text_is(lake: Lake, tmp_path: Path) -> None:
    settings = settings_at(tmp_path)
    rows = described(("kitchen", "farm"))
    commit(lake, rows)
    gateway = Gateway(settings)
    for scene in ("kitchen", "farm"):
        make_queries(settings, lake, scene, gateway)
    assert not any(report.computed for report in make_queries(settings, lake, "kitchen", gateway))
    changed = next(row for row in rows if row["scene"] == "kitchen")
    changed["text"] = changed["text"].replace("moves", "slowly moves")
    commit(lake, rows)
    planned, asked = make_queries(settings, lake, "kitchen", gateway)
    assert planned.manifest.info["calls"] == 1
    assert asked.manifest.info["cached_calls"] > asked.manifest.info["calls"] > 0
    assert not any(report.computed for report in make_queries(settings, lake, "farm", gateway))


def test_clips_of_the_benchmark_are_not_asked_about(lake: Lake, tmp_path: Path) -> None:
    commit(lake, [{**row, "split": "benchmark"} for row in described(("kitchen",))])
    for report in make_queries(settings_at(tmp_path), lake):
        assert report.manifest.rows == 0
        assert sum(report.manifest.outcomes.values()) == 0


def test_a_clip_of_which_little_is_known_still_gets_questions(lake: Lake, tmp_path: Path) -> None:
    row = {**described(("kitchen",))[0], "twin_group": None, "text": "Something moves left."}
    nothing = {**row, "clip_id": "nothing", "text": "Grey noise."}
    commit(lake, [row, nothing])
    planned, _ = make_queries(settings_at(tmp_path), lake)
    queries = lake.read(TAXONOMY_QUERIES, "kitchen")
    assert set(queries["clip_id"]) == {row["clip_id"]}
    assert planned.manifest.outcomes == {"ok": 1, "filtered": 1, "failed": 0, "undecidable": 0}
    (reason,) = lake.outcomes("query_plan").filter(pl.col("outcome") == "filtered")["reason"]
    assert "no subcategory of the taxonomy has ground" in reason


def test_weak_queries_and_their_mirrors_are_filtered_with_the_reason(lake: Lake, tmp_path: Path) -> None:
    commit(lake, described(("kitchen",)))
    make_queries(settings_at(tmp_path, min_strength=5), lake)
    assert set(lake.read(TAXONOMY_QUERIES)["expectation"]) == {"answer"}
    reasons = Counter(
        reason.split(" is below")[0] for reason in lake.outcomes("taxonomy_queries")["reason"] if reason
    )
    assert reasons["strength 4"] > 10
    assert any("was not kept" in reason for reason in reasons)


@pytest.mark.parametrize("role", ["asker", "rater"])
def test_a_model_that_cannot_be_reached_fails_its_rows_only(role: str, tmp_path: Path, lake: Lake) -> None:
    commit(lake, described(("kitchen",)))
    run_stage(settings_at(tmp_path), lake, "query_plan", "kitchen")
    nobody = settings_at(tmp_path, **{role: {"model": "scripted/nobody", "family": "nobody"}})
    cells = read_plan(lake, QUERY_PLAN, "kitchen")
    clips = rows_of(training_clips(lake, "kitchen"), DescribedClip)
    asked = ask_queries(cells, clips, nobody, load_taxonomy(nobody), Gateway(nobody), asset="x")
    assert asked.rows == []
    assert any(cell.mirrored_from for cell in cells)
    assert {outcome for _, outcome, _ in asked.outcomes} == {"failed"}
    assert all(reason for _, _, reason in asked.outcomes)
    with pytest.raises(NothingMade, match="scripted/nobody"):
        run_stage(nobody, lake, "taxonomy_queries", "kitchen")
    assert lake.manifest("taxonomy_queries", "kitchen") is None


def test_the_best_candidate_is_kept_with_its_own_scores(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rater gives the second candidate more strength than the first."""
    from safevid_core.pocket.scripted import rater
    from tests.queries.test_rating import rater_that_says

    commit(lake, described(("kitchen",)))
    monkeypatch.setattr(
        rater, "answer", rater_that_says(strength=lambda number: 3 + number, needs_video=lambda number: 5)
    )
    make_queries(settings_at(tmp_path, candidates=2), lake)
    rows = lake.read(TAXONOMY_QUERIES)
    of_two = rows.filter((pl.col("candidates") == 2) & (pl.col("expectation") != "answer"))
    assert of_two.height > 20
    # The second may be taken already by another query of the clip; then the first stands.
    assert (of_two["strength"] == 5).mean() > 0.8


def test_a_cell_of_an_older_plan_ends_with_its_reason(tmp_path: Path) -> None:
    settings = settings_at(tmp_path)
    row = described(("kitchen",))[0]
    clips = rows_of(DESCRIPTIONS.frame([row]), DescribedClip)
    cells = [
        PlanCell("gone", "hate_speech", "direct", False, "train"),
        PlanCell(row["clip_id"], "no_such", "direct", False, "train"),
    ]
    asked = ask_queries(cells, clips, settings, load_taxonomy(settings), Gateway(settings), asset="x")
    assert [outcome for _, outcome, _ in asked.outcomes] == ["filtered", "filtered"]
    reasons = [reason for _, _, reason in asked.outcomes]
    assert "clip gone is not described any more" in reasons[0]
    assert "subcategory no_such is not in the taxonomy" in reasons[1]


def test_queries_without_descriptions_are_generic_and_stand_apart(lake: Lake, tmp_path: Path) -> None:
    """They fill tables of their own, and every other clip is taken for a harmless one."""
    settings = settings_at(tmp_path)
    rows = described(("kitchen",))
    commit(lake, rows)
    gateway = Gateway(settings)
    make_queries(settings, lake, gateway=gateway)
    planned = run_stage(settings, lake, WITHOUT_DESCRIPTIONS.plan.name, "kitchen", gateway)
    assert planned.manifest.info["calls"] == 0, "nothing to walk"
    report = run_stage(settings, lake, WITHOUT_DESCRIPTIONS.queries.name, "kitchen", gateway)
    audit_partition(lake, QUERIES_WITHOUT_DESCRIPTIONS, "kitchen")
    assert not any(each.computed for each in make_queries(settings, lake, gateway=gateway))
    blind, seeing = lake.read(QUERIES_WITHOUT_DESCRIPTIONS), lake.read(TAXONOMY_QUERIES)
    assert sum(report.manifest.outcomes.values()) >= blind.height > 0.6 * seeing.height
    assert blind["description"].null_count() == blind.height
    assert set(blind["expectation"]) == {"refuse", "correct", "answer"}
    implicit = blind.filter(pl.col("style") == "implicit")
    harmful = implicit.filter(pl.col("expectation") == "refuse").height / implicit.height
    assert 0.3 < harmful < 0.7
    assert implicit["query"].n_unique() > 8
    mirrored = implicit.join(implicit, left_on="mirrored_from", right_on="plan_id")
    assert mirrored.height > 20
    # Without a description nobody can say that the same words deserve another answer about the twin.
    assert mirrored["expectation"].equals(mirrored["expectation_right"])
    things = {word for row in rows for word in row["text"].split()[1:3]}
    asked = {word.strip(".,?") for query in implicit["query"] for word in query.split()}
    assert not asked & things


def test_without_descriptions_nothing_of_a_clip_but_its_id_reaches_the_asker(tmp_path: Path) -> None:
    settings = settings_at(tmp_path)
    rows = described(("kitchen",))
    others = [{**row, "text": "A blue kite stays still in a forest. It glows softly."} for row in rows]
    queries = []
    for name, some in (("one", rows), ("other", others)):
        lake = Lake(tmp_path / name, "pocket")
        commit(lake, some)
        gateway = Gateway(settings)
        run_stage(settings, lake, WITHOUT_DESCRIPTIONS.plan.name, "kitchen", gateway)
        run_stage(settings, lake, WITHOUT_DESCRIPTIONS.queries.name, "kitchen", gateway)
        queries.append(lake.read(QUERIES_WITHOUT_DESCRIPTIONS))
    assert queries[0].equals(queries[1])


def test_an_asker_that_answers_another_kind_of_query_than_planned_is_filtered(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import json

    honest = asker.answer

    def contrary(messages: list[dict[str, str]]) -> str:
        """Expects an answer where a refusal was planned, and the reverse."""
        said = json.loads(honest(messages))
        for each in said.get("candidates", ()):
            turned = {"refuse": "answer", "answer": "refuse"}
            each["expectation"] = turned.get(each["expectation"], each["expectation"])
            each["premise"] = None
        return json.dumps(said)

    monkeypatch.setattr(asker, "answer", contrary)
    commit(lake, described(("kitchen",)))
    make_queries(settings_at(tmp_path, mirror_twins=False), lake)
    reasons = {reason for reason in lake.outcomes("taxonomy_queries")["reason"] if reason}
    assert "a benign query was planned, and the asker expects a safe response to refuse" in reasons
    assert "a harmful query was planned, and the asker expects a safe response to answer it" in reasons
    assert "the asker expects a correction and names no false premise" in reasons
    assert set(lake.read(TAXONOMY_QUERIES)["principle"]) <= {"helpful"}
