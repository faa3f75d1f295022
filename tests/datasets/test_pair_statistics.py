"""Pair statistics: figures that follow from the pairs, classifiers that find what is there, and the check."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safevid_core.contracts.errors import SafeVidError
from safevid_core.contracts.outcomes import StageRows
from safevid_core.contracts.tables import (
    DESCRIPTIONS,
    IMPORTED_PAIRS,
    PAIRS,
    RELEASE,
    TAXONOMY_QUERIES,
    VIDEO_CORPUS,
)
from safevid_core.datasets.pair_details import other_motion, unsupported
from safevid_core.datasets.pair_plots import write_plots
from safevid_core.datasets.pair_statistics import (
    ALL,
    FILE,
    GROUPINGS,
    MEASURES,
    NO_QUERIES,
    STATISTICS_SCHEMA,
    PairStatistics,
    asked_queries,
    pair_statistics,
)
from safevid_core.datasets.pair_style import STYLE_WITHIN_LIMITS, sample_of
from safevid_core.datasets.statistics_card import statistics_section
from safevid_core.preferences.facts import fact_against
from safevid_core.settings import DatasetSettings, load_settings
from safevid_core.statistics.intervals import SAMPLE_SCHEMA, Sample, estimate
from safevid_core.storage.lake import Lake
from tests.evaluation.small_lake import put
from tests.stages import planner_of, run_stage

WORDS = [f"word{number}" for number in range(60)]


def pair(name: str, **changed: Any) -> dict[str, Any]:
    row = {
        "pair_id": name, "query_id": f"query {name}", "clip_id": "clip 0", "scene": "street",
        "principle": "harmless", "subcategory": "theft", "style": "direct", "expectation": "refuse",
        "prompt": "How do I open this car?", "chosen": "I will not help with that.",
        "rejected": "Take a stone.", "criteria": [], "policy": [], "margin": 0.5, "chosen_model": "a",
        "rejected_model": "b", "pair_judge": "c", "flags": ["chosen_refuses"],
    }  # fmt: skip
    return row | changed


def random_pairs(count: int, seed: int = 0, videos: int = 40, marker: str = "") -> list[dict[str, Any]]:
    """Pairs whose responses are drawn from the same words.

    With a marker, each chosen response ends in it and each rejected one in its letters backwards.
    """
    rng = random.Random(seed)
    return [
        pair(
            f"{number}", prompt=f"How do I open car {number}?", clip_id=f"clip {rng.randrange(videos)}",
            scene=rng.choice(["street", "kitchen"]),
            subcategory=rng.choice(["theft", "arson", "fraud"]), expectation=rng.choice(["refuse", "answer"]),
            chosen=" ".join([*rng.sample(WORDS, rng.randint(5, 15)), marker]).strip() + ".",
            rejected=" ".join([*rng.sample(WORDS, rng.randint(5, 15)), marker[::-1]]).strip() + ".",
        )
        for number in range(count)
    ]  # fmt: skip


def measured(
    rows: list[dict[str, Any]],
    descriptions: dict[str, str] | None = None,
    queries: pl.DataFrame = NO_QUERIES,
) -> PairStatistics:
    clips = sorted({row["clip_id"] for row in rows})
    sources = pl.DataFrame(
        {"clip_id": clips, "source_id": [f"source of {clip}" for clip in clips]},
        schema={"clip_id": pl.String, "source_id": pl.String},
    )
    told = pl.DataFrame(
        list((descriptions or {}).items()),
        schema={"clip_id": pl.String, "description": pl.String},
        orient="row",
    )
    return pair_statistics(PAIRS.frame(rows), sources, told, queries)


def figures(found: PairStatistics, grouping: str = ALL, category: str = ALL) -> dict[str, dict[str, Any]]:
    rows = found.table.filter(pl.col("grouping") == grouping, pl.col("category") == category)
    return {row["measure"]: row for row in rows.iter_rows(named=True)}


def test_labels_that_do_not_depend_on_the_text_are_told_by_chance() -> None:
    """Over ten draws the intervals hold a half: each misses it with a probability of 5%."""
    missed = 0
    for seed in range(10):
        style = measured(random_pairs(400, seed)).style
        for accuracy in (style.words, style.length):
            assert accuracy.ci_low is not None
            assert accuracy.ci_high is not None
            missed += not accuracy.ci_low <= 0.5 <= accuracy.ci_high
    assert missed <= 4


def test_a_planted_word_is_found_and_named_and_does_not_help_length() -> None:
    marked = measured(random_pairs(400, 1, marker="indeed"))
    assert marked.style.words.value == 1
    assert marked.style.for_chosen[0] == "indeed"
    assert abs((marked.style.length.value or 0) - 0.5) < 0.1


@settings(max_examples=5, deadline=None)
@given(st.randoms(use_true_random=False))
def test_the_order_of_the_rows_changes_nothing(rng: random.Random) -> None:
    rows = random_pairs(60, 3, marker="indeed")
    other = rng.sample(rows, len(rows))
    first, second = measured(rows), measured(other)
    assert first.table.equals(second.table)
    assert first.style == second.style
    assert first.composition.equals(second.composition)


def test_shares_have_the_value_and_the_interval_of_the_statistics_room() -> None:
    rows = random_pairs(300, 4)
    for number, row in enumerate(rows):
        row["flags"] = ["rejected_refuses"] if number % 3 else []
    found = figures(measured(rows), "subcategory", "arson")["rejected_refuses"]
    values = [
        (row["pair_id"], f"source of {row['clip_id']}", None, 0, float("rejected_refuses" in row["flags"]))
        for row in rows
        if row["subcategory"] == "arson"
    ]
    wanted = estimate(Sample(pl.DataFrame(values, schema=SAMPLE_SCHEMA, orient="row")))
    assert (found["n"], found["value"]) == (wanted.n, wanted.value)
    assert found["ci_low"] == pytest.approx(wanted.ci_low, abs=0.01)
    assert found["ci_high"] == pytest.approx(wanted.ci_high, abs=0.01)


def test_lengths_open_ends_and_groups_are_counted() -> None:
    rows = [
        pair("a", chosen="One two three four.", rejected="One two"),
        pair("b", chosen="One two.", rejected="One two three?", scene="kitchen", style=None),
        pair("c", chosen="One two", rejected="Drei Wörter hier! ", scene="kitchen"),
        pair("d", chosen="好的。", rejected="one", clip_id="clip 1"),
    ]
    found = measured(rows)
    whole = figures(found)
    assert {name: whole[name]["value"] for name in ("pairs", "clips", "length_difference")} == {
        "pairs": 4, "clips": 2, "length_difference": -0.5,
    }  # fmt: skip
    assert whole["chosen_longer"]["value"] == (1 + 0 + 0 + 0.5) / 4
    assert whole["chosen_ends_open"]["value"] == 0.25
    assert whole["rejected_ends_open"]["value"] == 0.5
    assert figures(found, "scene", "kitchen")["pairs"]["value"] == 2
    assert figures(found, "style", "unlabelled")["length_difference"]["value"] == -1
    assert sorted(found.differences) == [-1, -1, 0, 2]
    assert found.composition.filter(pl.col("grouping") == "scene")["pairs"].to_list() == [2, 2]


def test_refusals_of_imported_pairs_are_read_because_they_have_no_flags() -> None:
    rows = [
        pair("made", flags=[], chosen="I will not help with that."),
        pair("theirs", flags=[], pair_judge="none", chosen="Sure.", rejected="I cannot help with that."),
    ]
    found = figures(measured(rows))
    assert (found["chosen_refuses"]["value"], found["rejected_refuses"]["value"]) == (0, 0.5)


@pytest.mark.parametrize(
    ("chosen", "colour", "number"),
    [
        ("He wears a red coat.", 0, 0),
        ("He wears a blue coat.", 1, 0),
        ("He stands before a gray wall.", 0, 0),  # the description says grey
        ("Two men carry it.", 0, 0),  # the description says 2
        ("Three men carry it.", 0, 1),
        ("1. Step back.\n2. Call 911.\n3. Wait.", 0, 0),  # marks of a list, and a number to call
        ("A green car, as you say.", 0, 0),  # the query names it
        ("I covered the bored man.", 0, 0),  # parts of words
    ],
)
def test_a_detail_is_borne_out_by_description_or_query(chosen: str, colour: int, number: int) -> None:
    description = "A man in a red coat and 2 men stand before a grey wall."
    row = pair("a", prompt="Where is the green car?", chosen=chosen)
    frame = PAIRS.frame([row]).with_columns(description=pl.lit(description))
    assert unsupported(frame).row(0)[1:] == (colour, number)
    unknown = frame.with_columns(description=pl.lit(None, pl.String))
    assert unsupported(unknown).row(0)[1:] == (None, None)


def test_another_motion_is_counted_only_where_both_state_one() -> None:
    texts = ["It moves right.", "It moves left.", "It is red.", "It moves left and moves right."]
    frame = pl.DataFrame(
        {"pair_id": list("abcd"), "chosen": texts, "description": ["The crate moves left."] * 4}
    )
    assert other_motion(frame)["chosen_other_motion"].to_list() == [1, 0, None, None]
    assert (
        other_motion(frame.with_columns(description=pl.lit(None, pl.String)))["chosen_other_motion"].to_list()
        == [None] * 4
    )


ENGLISH = (
    "I cannot help with this, because the person in the video could be hurt if somebody did the same thing, "
    "and you should call the police if you see it."
)


@pytest.mark.parametrize(
    ("text", "english"),
    [
        (ENGLISH, 1),
        (
            "Dabei kann ich nicht helfen, denn die Person in dem Video könnte verletzt werden, wenn jemand "
            "das nachmacht, und man sollte die Polizei rufen.",
            0,
        ),
        (
            "No puedo ayudar con esto, porque la persona del video podría resultar herida si alguien hiciera "
            "lo mismo, y se debería llamar a la policía.",
            0,
        ),
        (
            "Je ne peux pas aider, parce que la personne de la vidéo pourrait être blessée si quelqu'un "
            "faisait la même chose, et il faut appeler la police.",
            0,
        ),
        (
            "Daar kan ik niet mee helpen, want de persoon in de video zou gewond kunnen raken als iemand "
            "hetzelfde doet, en men moet de politie bellen.",
            0,
        ),
        ("It is red.", None),
    ],
)
def test_english_is_told_from_other_languages_of_the_script(text: str, english: int | None) -> None:
    found = figures(measured([pair("a", chosen=text, rejected=ENGLISH)]))
    assert found["rejected_english"]["value"] == 1
    assert (found["chosen_english"]["value"] if "chosen_english" in found else None) == english


def test_a_sample_does_not_depend_on_order_and_grows_by_what_it_holds() -> None:
    pairs = pl.DataFrame({"pair_id": [str(number) for number in range(500)]})
    small, large = sample_of(pairs, 50), sample_of(pairs.reverse(), 100)
    assert set(small["pair_id"]) < set(large["pair_id"])
    assert small["pair_id"].is_sorted()
    assert sample_of(pairs, 500)["pair_id"].len() == 500


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param([], id="empty release"),
        pytest.param([pair("a")], id="one pair"),
        pytest.param(random_pairs(30, 5, videos=1, marker="indeed"), id="one video"),
    ],
)
def test_few_pairs_have_figures_without_classifiers(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    found = measured(rows)
    assert found.table.schema == STATISTICS_SCHEMA
    assert found.style.words.value is None
    assert "told_by_words" not in figures(found)
    assert len(found.differences) == len(rows)
    plots = write_plots(found, tmp_path)
    assert bool(plots) == bool(rows)
    text = statistics_section(found, plots, DatasetSettings())
    assert "The classifiers are not measured: the pairs are of fewer than two source videos." in text


def test_plots_have_the_same_bytes_and_the_card_names_each(tmp_path: Path) -> None:
    found = measured(random_pairs(80, 6), {"clip 1": "A red car."})
    folders = [tmp_path / "one", tmp_path / "other"]
    for folder in folders:
        folder.mkdir()
    plots, again = (write_plots(found, folder) for folder in folders)
    assert plots == again
    assert len(plots) == 2 * len(GROUPINGS) + 1
    for path in plots:
        assert (folders[0] / path).read_bytes() == (folders[1] / path).read_bytes()
    text = statistics_section(found, plots, DatasetSettings())
    assert all(f"]({path})" in text for path in plots)
    assert all(f"| `{name}` |" in text for name in figures(found))
    assert set(figures(found)) <= set(MEASURES)


def test_the_card_says_whether_a_limit_is_set_and_kept() -> None:
    marked = measured(random_pairs(300, 7, videos=200, marker="indeed"))
    text = statistics_section(marked, [], DatasetSettings(max_length_accuracy=None))
    assert "The limit `datasets.max_words_accuracy` is 95%, and this release is ABOVE it." in text
    assert (
        "No limit is set (`datasets.max_length_accuracy: null`), so no accuracy refuses this release." in text
    )
    within = statistics_section(measured(random_pairs(200, 7)), [], DatasetSettings())
    assert "The limit `datasets.max_words_accuracy` is 95%, and this release is within it." in within


@pytest.mark.parametrize("value", [0.4, 1.1, "high"])
def test_a_limit_below_chance_or_above_one_is_refused(value: Any, tmp_path: Path) -> None:
    for name in ("max_words_accuracy", "max_length_accuracy"):
        with pytest.raises(SafeVidError, match=rf"datasets\.{name}"):
            load_settings("pocket", overrides={"root": str(tmp_path), "datasets": {name: value}})


def lake_of(root: Path, rows: list[dict[str, Any]]) -> Lake:
    """A lake with the tables that a release reads; the last two queries have no pair."""
    lake = Lake(root, "pocket")
    clips = sorted({row["clip_id"] for row in rows})
    corpus = [{"clip_id": clip, "source_id": f"source of {clip}", "licence": "CC0-1.0"} for clip in clips]
    put(lake, VIDEO_CORPUS, "street", corpus)
    put(
        lake,
        DESCRIPTIONS,
        "street",
        [{"clip_id": clip, "text": "A red car.", "model": "m"} for clip in clips],
    )
    queries = [{**row, "query_id": row["query_id"], "plan_id": row["pair_id"]} for row in rows]
    kept = list(TAXONOMY_QUERIES.schema)
    put(lake, TAXONOMY_QUERIES, "street", [{name: row.get(name) for name in kept} for row in queries])
    outcomes: list[Any] = [(row["query_id"], "ok", "") for row in rows[:-2]]
    outcomes += [
        (rows[-2]["query_id"], "filtered", f"rejected response: {fact_against('Take a', cut=True)}"),
        (rows[-1]["query_id"], "failed", "the server did not answer"),
    ]
    lake.commit(PAIRS, "street", StageRows(PAIRS.frame(rows[:-2]), sorted(outcomes), {}), "by hand", {})
    return lake


def test_queries_that_lost_a_response_at_its_limit_are_counted(tmp_path: Path) -> None:
    lake = lake_of(tmp_path, random_pairs(12, 8))
    asked = asked_queries(lake)
    assert (asked.height, asked["cut_at_limit"].sum()) == (11, 1)
    found = figures(measured(random_pairs(10, 8), queries=asked))["cut_at_limit"]
    assert (found["n"], found["value"]) == (11, pytest.approx(1 / 11))


def settings_of(root: Path, **datasets: Any) -> Any:
    wanted = {"across_videos": False, "near_duplicate": 1.0, **datasets}
    return load_settings("pocket", overrides={"root": str(root), "datasets": wanted})


def test_a_release_that_its_words_tell_is_refused_until_the_limit_is_off(tmp_path: Path) -> None:
    lake = lake_of(tmp_path, random_pairs(302, 9, videos=200, marker="indeed"))
    strict = settings_of(tmp_path, max_words_accuracy=0.95)
    report = run_stage(strict, lake, RELEASE.name)
    stage = planner_of(strict, lake).registry[RELEASE.name]
    assert STYLE_WITHIN_LIMITS in stage.checks
    tools = planner_of(strict, lake).tools
    finding = STYLE_WITHIN_LIMITS.run(tools, stage, ["all"])
    assert len(finding.problems) == 1
    assert "a classifier of words tells the chosen response in 100.0% of 300 pairs" in finding.problems[0]
    assert "datasets.max_words_accuracy 0.95" in finding.problems[0]
    assert "indeed" in finding.problems[0]
    folder = lake.root / report.manifest.info["path"]
    written = pl.read_parquet(folder / FILE)
    assert written.schema == STATISTICS_SCHEMA
    card = (folder / "README.md").read_text()
    assert "is 95%, and this release is ABOVE it" in card
    assert all(
        (folder / part.split(")")[0]).is_file() for part in card.split("](")[1:] if part.startswith("plots/")
    )

    off = settings_of(tmp_path, max_words_accuracy=None)
    again = run_stage(off, lake, RELEASE.name)
    assert STYLE_WITHIN_LIMITS.run(planner_of(off, lake).tools, stage, ["all"]).passed
    assert again.manifest.info["release"] == report.manifest.info["release"]
    assert again.manifest.info["style"]["words"]["value"] == 1
    assert (
        "`datasets.max_words_accuracy: null`"
        in (lake.root / again.manifest.info["path"] / "README.md").read_text()
    )


def test_a_release_of_imported_pairs_alone_says_nothing_of_queries_asked_here(tmp_path: Path) -> None:
    rows = random_pairs(12, 11)
    lake = lake_of(tmp_path, rows)
    theirs = [row | {"pair_id": f"theirs {row['pair_id']}", "pair_judge": "none"} for row in rows]
    put(lake, IMPORTED_PAIRS, "all", theirs)
    columns = {name: name for name in ("query", "chosen", "rejected", "video")}
    imports = {"theirs": {"path": str(tmp_path / "theirs.jsonl"), "columns": columns}}
    report = run_stage(settings_of(tmp_path, only_imports=True, imports=imports), lake, RELEASE.name)
    table = pl.read_parquet(lake.root / report.manifest.info["path"] / FILE)
    assert set(table.filter(pl.col("measure") == "pairs", pl.col("grouping") == ALL)["value"]) == {12}
    assert "cut_at_limit" not in set(table["measure"])


def test_two_releases_of_the_same_pairs_have_the_same_folder(tmp_path: Path) -> None:
    rows = random_pairs(32, 10)
    paths = []
    for name in ("one", "other"):
        lake = lake_of(tmp_path / name, rows)
        paths.append(run_stage(settings_of(tmp_path / name), lake, RELEASE.name).manifest.info["path"])
    assert paths[0] == paths[1]
