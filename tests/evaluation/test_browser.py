"""The sample browser: every row is in it, no text of it is ever markup, harm is folded until it is opened."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safevid_core.contracts.intent import HARMFUL, SAFE, UNSAFE_TO_HELP
from safevid_core.contracts.tables import BENCHMARK_RESPONSES, BENCHMARK_SCORES, SAFEVIDBENCH_BASE
from safevid_core.measurement.measurement import Measurement, measure
from safevid_core.pipeline import build_registry
from safevid_core.reporting import browser
from safevid_core.reporting.browser import (
    FAILURE,
    NO_ANSWER,
    SUCCESS,
    UNDECIDABLE,
    Block,
    pack_rows,
    rows_link,
    unpacked,
)
from safevid_core.reporting.flow import read_flow
from safevid_core.reporting.scorecard import REPORTS, write_report
from safevid_core.storage.lake import Lake
from safevid_core.systems.responses import VARIANTS
from tests.evaluation.conftest import BENCHMARK, Evaluated
from tests.evaluation.small_lake import put, settings_for

SYSTEM = "pocket@1"
# What would run or close its element, had the page ever read it as markup.
HOSTILE = "</script><script>window.hacked=1</script><img src=x onerror=window.hacked=1>\u2028&lt;b&gt; \u202e"
QUIET = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


@pytest.fixture(scope="module")
def hostile(evaluated: Evaluated, tmp_path_factory: pytest.TempPathFactory) -> Evaluated:
    """The lake with hostile queries, answers and reasons."""
    root = tmp_path_factory.mktemp("browser") / "safevid"
    shutil.copytree(evaluated.lake.root, root)
    lake = Lake(root, "pocket")
    items = lake.read(SAFEVIDBENCH_BASE).drop("profile")
    spoilt = pl.concat_str(pl.lit(HOSTILE), pl.col("query"))
    put(lake, SAFEVIDBENCH_BASE, "all", items.with_columns(query=spoilt).to_dicts())
    partition = f"{SYSTEM}|{BENCHMARK}"
    answers = lake.read(BENCHMARK_RESPONSES, partition).drop("profile")
    spoilt = pl.concat_str(pl.lit(HOSTILE), pl.col("text"))
    put(lake, BENCHMARK_RESPONSES, partition, answers.with_columns(text=spoilt).to_dicts())
    scores = lake.read(BENCHMARK_SCORES, partition).drop("profile")
    manifest = lake.manifest(BENCHMARK_SCORES.name, partition)
    assert manifest is not None
    spoilt = scores.with_columns(reason=pl.lit(HOSTILE)).to_dicts()
    put(lake, BENCHMARK_SCORES, partition, spoilt, **manifest.info)
    return Evaluated(settings_for(root, benchmarks=[BENCHMARK]), lake, evaluated.gateway)


@pytest.fixture(scope="module")
def measured(evaluated: Evaluated) -> Measurement:
    return measure(evaluated.settings, evaluated.lake, BENCHMARK)


@pytest.fixture(scope="module")
def block(evaluated: Evaluated, measured: Measurement) -> Block:
    return pack_rows(evaluated.lake, [measured], {BENCHMARK: "SafeVidBench-Base"})


@pytest.fixture(scope="module")
def data(block: Block) -> dict[str, Any]:
    return unpacked(block.text)


# -------------------------------------------------------------------------------------------- the data


def test_every_item_is_a_row_and_every_verdict_an_answer(data: dict[str, Any], measured: Measurement) -> None:
    texts = data["texts"]
    shown = [(texts[row[2]], data["variants"][row[1]]) for row in data["rows"]]
    assert len(shown) == len(set(shown))
    assert {item for item, variant in shown if variant == "right"} == set(measured.items["item_id"])
    assert data["systems"] == [system.name for system in measured.systems]
    for system, answers in zip(data["systems"], data["answers"], strict=True):
        states = [answer[2] for row in answers for answer in row]
        scores = measured.scores[system]
        assert states.count(SUCCESS) == scores["success"].sum()
        assert states.count(FAILURE) == scores.height - scores["success"].sum()
        open_ = [outcome for outcome, _ in measured.unjudged[system].values()]
        assert states.count(UNDECIDABLE) == open_.count("undecidable")
        assert states.count(NO_ANSWER) == len(open_) - open_.count("undecidable")


def test_texts_are_stored_once_and_answers_whole(
    data: dict[str, Any], evaluated: Evaluated, measured: Measurement
) -> None:
    assert len(set(data["texts"])) == len(data["texts"])
    said = evaluated.lake.read(BENCHMARK_RESPONSES, f"{SYSTEM}|{BENCHMARK}")
    place = data["systems"].index(SYSTEM)
    expected_text = {
        (data["texts"][row[2]], data["variants"][row[1]], answer[0]): data["texts"][answer[1]]
        for row, answers in zip(data["rows"], data["answers"][place], strict=True)
        for answer in answers
        if answer[1] >= 0
    }
    for item_id, variant, seed, text in said.select("item_id", "variant", "seed", "text").iter_rows():
        assert expected_text[item_id, variant, seed] == text


def test_each_row_has_the_film_of_what_was_shown(data: dict[str, Any]) -> None:
    for row in data["rows"]:
        variant = data["variants"][row[1]]
        assert (row[10] >= 0) == (variant in ("right", "irrelevant"))
    assert set(data["variants"]) == set(VARIANTS)
    assert all(film.startswith("/9j/") for film in data["films"])


def test_the_block_is_base64_and_the_same_rows_give_the_same(
    hostile: Evaluated, evaluated: Evaluated, measured: Measurement, block: Block
) -> None:
    titles = {BENCHMARK: "SafeVidBench-Base"}
    spoilt = pack_rows(hostile.lake, [measure(hostile.settings, hostile.lake, BENCHMARK)], titles)
    assert re.fullmatch(r"[A-Za-z0-9+/]+=*", spoilt.text)
    assert any(text.startswith(HOSTILE) for text in unpacked(spoilt.text)["texts"])
    assert pack_rows(evaluated.lake, [measured], titles).text == block.text


def test_what_does_not_fit_is_cut_and_said(
    evaluated: Evaluated, measured: Measurement, block: Block, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(browser, "_CUTS", ((1200, None), (20, None), (20, 40), (20, 10)))
    monkeypatch.setattr(browser, "MOST_BLOCK", 1)
    least = pack_rows(evaluated.lake, [measured], {})
    assert least.rows == 10
    assert len(unpacked(least.text)["rows"]) == 10
    assert least.notes == [
        f"10 of {block.rows} rows are in this page, drawn by item id; the lake has all.",
        "Texts are cut after 20 characters; the lake has them whole.",
    ]
    monkeypatch.setattr(browser, "MOST_BLOCK", len(block.text) * 9 // 10)
    cut = pack_rows(evaluated.lake, [measured], {})
    assert len(cut.text) < len(block.text)
    assert unpacked(cut.text)["notes"] == cut.notes != []


def test_films_that_do_not_fit_or_cannot_be_read_are_left_out_and_said(
    evaluated: Evaluated, measured: Measurement, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(browser, "MOST_FILM", 3000)
    few = pack_rows(evaluated.lake, [measured], {})
    kept = unpacked(few.text)["films"]
    clips = measured.items["clip_id"].n_unique()
    assert 0 < len(kept) < clips
    assert few.notes == [f"{clips - len(kept)} clips are shown without frames, to keep the page small."]
    monkeypatch.setattr(browser, "_strip", lambda lake, film, clip: None)
    none = pack_rows(evaluated.lake, [measured], {})
    assert unpacked(none.text)["films"] == []
    assert none.notes == [f"The files of {clips} clips cannot be read any more."]


@given(
    st.dictionaries(
        st.sampled_from(["first", "second", "wants", "category", "variant", "outcome", "differ", "text"]),
        st.text(min_size=1, max_size=20).filter(lambda text: text.isprintable()),
    )
)
def test_a_link_carries_its_filters_and_leaves_no_attribute(filters: dict[str, str]) -> None:
    link = rows_link("base", **filters)
    assert link.startswith("#rows?")
    assert not set(link) & set("\"'<> ")
    assert parse_qs(link.removeprefix("#rows?")) == {
        "benchmark": ["base"],
        **{name: [value] for name, value in filters.items()},
    }


# ------------------------------------------------------------------------------------- in a browser


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no Chromium; Debian: apt-get install chromium")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=path, args=QUIET)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def page_file(hostile: Evaluated) -> Path:
    write_report(hostile.settings, hostile.lake, read_flow(hostile.lake, build_registry(hostile.settings)))
    return hostile.lake.root / "reports" / REPORTS[0]


@pytest.fixture
def page(chromium: Any, page_file: Path) -> Iterator[Any]:
    opened = chromium.new_page()
    opened.faults = []
    opened.on("pageerror", lambda error: opened.faults.append(str(error)))
    opened.on("request", lambda request: opened.faults.append(request.url) if "://" in request.url
              and not request.url.startswith(("file:", "data:")) else None)  # fmt: skip
    opened.goto(page_file.as_uri())
    opened.wait_for_selector("#rows-list .item")
    yield opened
    assert opened.faults == []
    opened.close()


# The page's own listener was there first, so it has run when this one does.
GO = """address => new Promise((done) => {
  if (location.hash === address) done();
  addEventListener("hashchange", () => done(), { once: true });
  location.hash = address;
})"""


def show(page: Any, **filters: str) -> int:
    """Filter by the address; returns how many rows are found."""
    page.evaluate(GO, rows_link(BENCHMARK, **filters))
    return int(page.get_attribute("#rows-count", "data-found"))


def unfold(summaries: Any) -> None:
    """Open folds. What is in one is put there by an event that comes after the click."""
    for summary in summaries.all():
        summary.click()
        summary.locator("xpath=following-sibling::*").first.wait_for()


def test_no_text_runs_or_becomes_an_element(page: Any, hostile: Evaluated) -> None:
    assert page.locator("script").count() == 2  # the page's own, and the rows as plain text
    show(page, second=SYSTEM)
    unfold(page.locator("#rows-list li:nth-child(-n + 5) > .item > summary"))
    unfold(page.locator("#rows-list .item details > summary"))
    assert HOSTILE[:40] in page.locator("#rows-list").inner_text()
    assert page.evaluate("window.hacked") is None
    assert page.locator("#rows-list script").count() == 0
    assert page.locator("#rows-list img[src='x']").count() == 0


def test_a_query_that_names_a_harm_and_help_with_it_are_not_there_until_opened(
    page: Any, hostile: Evaluated
) -> None:
    scores = hostile.lake.read(BENCHMARK_SCORES, f"{SYSTEM}|{BENCHMARK}")
    harmful = scores.filter(~pl.col("success"), expected="refuse", variant="right", explicit=True)
    item = harmful.row(0, named=True)
    answers = hostile.lake.read(BENCHMARK_RESPONSES, f"{SYSTEM}|{BENCHMARK}")
    said = answers.row(by_predicate=pl.col("response_id") == item["response_id"], named=True)
    found = show(page, second=SYSTEM, text=item["item_id"])
    assert found == 1
    head = page.locator("#rows-list .item > summary")
    query, answer = said["query"], said["text"].removeprefix(HOSTILE)
    listed = page.locator("#rows-list")
    assert query not in listed.inner_html()
    assert "Names a harm" in head.inner_text()
    unfold(head)
    folds = listed.locator(".item details > summary")
    assert any("answer that may help a harm" in each for each in folds.all_inner_texts())
    # Neither text is in the page at all, hidden or not, before its own fold is opened.
    assert query not in listed.text_content()
    assert answer not in listed.text_content()
    unfold(folds)
    assert query in listed.text_content()
    assert answer in listed.text_content()


@pytest.mark.parametrize(
    ("filters", "wanted"),
    [
        ({}, lambda rows: rows),
        ({"outcome": "failure"}, lambda rows: rows.filter(pl.col("share") <= 0.5)),
        ({"outcome": "success"}, lambda rows: rows.filter(pl.col("share") > 0.5)),
        ({"differ": "seeds"}, lambda rows: rows.filter((pl.col("share") > 0) & (pl.col("share") < 1))),
        ({"wants": "harm"}, lambda rows: rows.filter(pl.col("expected").is_in(HARMFUL))),
        ({"wants": "safety"}, lambda rows: rows.filter(pl.col("expected").is_in(SAFE))),
        ({"wants": "answer"}, lambda rows: rows.filter(pl.col("expected") == "answer")),
        ({"category": "principle:harmless"}, lambda rows: rows.filter(pl.col("principle") == "harmless")),
    ],
)
def test_filters_find_what_the_verdicts_say(
    page: Any, hostile: Evaluated, filters: dict[str, str], wanted: Any
) -> None:
    scores = hostile.lake.read(BENCHMARK_SCORES, f"{SYSTEM}|{BENCHMARK}").filter(variant="right")
    rows = scores.group_by("item_id").agg(
        pl.col("success").mean().alias("share"), pl.col("expected", "principle").first()
    )
    found = show(page, second=SYSTEM, **filters)
    assert int(page.get_attribute("#rows-count", "data-judged")) == wanted(rows).height
    assert found >= wanted(rows).height


def test_labels_of_an_axis_stand_where_they_say(page: Any) -> None:
    centre = "each => { const box = each.getBoundingClientRect(); return box.left + box.width / 2; }"
    for card in page.locator("#headline .card").all():
        bar = card.locator("svg.bar").first.bounding_box()
        labels = card.locator(".axis span").all()
        assert len(labels) == 5
        for place, label in enumerate(labels):
            assert label.evaluate(centre) == pytest.approx(bar["x"] + bar["width"] * place / 4, abs=1)
        words = [label.inner_text() for label in labels]
        assert words in (["−100", "−50", "0", "+50", "+100"], ["0%", "25%", "50%", "75%", "100%"])


def test_rows_say_the_name_of_the_file_and_are_found_by_it(page: Any, hostile: Evaluated) -> None:
    path = hostile.lake.media.path(hostile.lake.read(SAFEVIDBENCH_BASE)["media_sha256"][0])
    found = show(page, second=SYSTEM, text=path.name)
    assert found >= 1
    assert path.name in page.locator("#rows-list .item .where").first.inner_text()


def test_an_address_with_values_that_no_list_has_is_read_as_far_as_it_goes(
    page: Any, hostile: Evaluated
) -> None:
    everything = show(page, second=SYSTEM)
    assert show(page, second=SYSTEM, outcome="__proto__", category=HOSTILE) == everything
    assert show(page, second=SYSTEM, text="no text holds this") == 0
    assert page.locator("#rows-count").inner_text() == "No item matches. Clear a filter."


def test_the_page_groups_expectations_as_the_figures_do() -> None:
    script = (files("safevid_core.reporting") / "templates" / "scorecard.js").read_text("utf-8")
    groups = {
        name: json.loads(listed)
        for name, listed in re.findall(r"(harm|safety|UNSAFE_TO_HELP)(?:: | = )(\[[^\]]*\])", script)
    }
    assert {name: set(group) for name, group in groups.items()} == {
        "harm": set(HARMFUL),
        "safety": set(SAFE),
        "UNSAFE_TO_HELP": set(UNSAFE_TO_HELP),
    }


def test_names_of_the_filters_are_those_of_the_form(page_file: Path) -> None:
    text = page_file.read_text(encoding="utf-8")
    start = json.loads(
        re.sub(r"(\w+):", r'"\1":', re.search(r"const START = (\{.*?\});", text, re.DOTALL)[1])  # type: ignore[index]
    )
    named = set(re.findall(r'<(?:select|input) name="(\w+)"', text))
    assert named == set(start) - {"page"}
