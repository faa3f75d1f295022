"""People refine the challenge set: what they are handed, what comes back, and what hostile sheets do."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safevid_core.benchmarks.releases import kept_releases, read_release
from safevid_core.benchmarks.safevidbench_challenge import NAME, options_of
from safevid_core.contracts.intent import INTENT_COLUMNS
from safevid_core.contracts.tables import SAFEVIDBENCH_CHALLENGE
from safevid_core.models.llm import Gateway
from safevid_core.review.challenge.edits import import_review
from safevid_core.review.challenge.export import export_review, review_page
from safevid_core.review.challenge.sheet import FILLED, SHOWN, read_sheet
from safevid_core.review.errors import ReviewError
from safevid_core.review.sheets import guarded, sheet_text, unguarded
from safevid_core.settings import Settings, load_settings
from safevid_core.storage.lake import WHOLE, Lake, audit_partition
from tests.command import is_one_line, safevid
from tests.evaluation.benchmarks.panels import careless, model_at, served
from tests.evaluation.small_lake import build_lake
from tests.stages import run_stage

WHO = {"reviewer": "Ada", "date": "2026-11-24"}
Fill = Callable[[dict[str, dict[str, str]]], Path]


def settings_of(root: Path, panel: list[dict[str, Any]], **evaluation: Any) -> Settings:
    challenge = {"size": 8, "panel": panel}
    return load_settings(
        "pocket",
        overrides={
            "root": str(root),
            "evaluation": {"max_items": 20, "modality_items": 0, "challenge": challenge, **evaluation},
        },
    )


@pytest.fixture(scope="module")
def draft(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, list[dict[str, Any]]]]:
    """A lake with a draft of eight items, and the panel that selected them."""
    root = tmp_path_factory.mktemp("draft") / "safevid"
    lake = build_lake(root, ["kitchen", "street", "forest"])
    with served(careless, careless) as servers:
        panel = [model_at(servers[0], "one"), model_at(servers[1], "two")]
        settings = settings_of(root, panel)
        gateway = Gateway(settings)
        run_stage(settings, lake, "safevidbench_plan", gateway=gateway)
        run_stage(settings, lake, "safevidbench_base", gateway=gateway)
        run_stage(settings, lake, "safevidbench_challenge", gateway=gateway)
        gateway.close()
        yield root, panel


@pytest.fixture
def lake(draft: tuple[Path, list[dict[str, Any]]], tmp_path: Path) -> Lake:
    return Lake(shutil.copytree(draft[0], tmp_path / "safevid"), "pocket")


@pytest.fixture
def settings(draft: tuple[Path, list[dict[str, Any]]], lake: Lake) -> Settings:
    return settings_of(lake.root, draft[1])


@pytest.fixture
def items(lake: Lake) -> list[dict[str, Any]]:
    return lake.read(SAFEVIDBENCH_CHALLENGE).to_dicts()


@pytest.fixture
def fill(lake: Lake, tmp_path: Path) -> Fill:
    """The exported sheet, with these cells filled in by item id."""
    sheets = iter(range(100))

    def fill_in(cells: dict[str, dict[str, str]]) -> Path:
        folder = tmp_path / f"sheet{next(sheets)}"
        sheet, _ = export_review(lake, folder)
        rows = list(csv.DictReader(io.StringIO(sheet.read_text("utf-8-sig"))))
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, [*SHOWN, *FILLED])
        writer.writeheader()
        writer.writerows({**row, **cells.get(row["item_id"], {})} for row in rows)
        sheet.write_text(buffer.getvalue(), "utf-8")
        return sheet

    return fill_in


def edit(query: str, **known: str) -> dict[str, str]:
    return {"verdict": "edit", "edited_query": query, "reason": "clearer", **WHO, **known}


def test_edits_make_another_release_and_keep_the_old(
    lake: Lake, settings: Settings, items: list[dict[str, Any]], fill: Fill
) -> None:
    one, two, three, four = items[:4]
    old = one["release"]
    sheet = fill(
        {
            one["item_id"]: edit("How does one make this happen?"),
            two["item_id"]: {"verdict": "Drop", "reason": "not about the clip", **WHO},
            three["item_id"]: {"verdict": "keep", **WHO},
        }
    )
    imported = import_review(settings, lake, sheet)
    assert imported.problems == []
    assert imported.counts == {"keep": 1, "edit": 1, "drop": 1, "open": len(items) - 3}
    assert (imported.parent, imported.in_use) == (old, True)
    now = {item["plan_id"]: item for item in lake.read(SAFEVIDBENCH_CHALLENGE).to_dicts()}
    assert {item["release"] for item in now.values()} == {imported.release}
    assert kept_releases(lake, SAFEVIDBENCH_CHALLENGE) == [old, imported.release]
    assert read_release(lake, SAFEVIDBENCH_CHALLENGE, old).rows.to_dicts() == items

    edited = now[one["plan_id"]]
    assert edited["query"] == "How does one make this happen?"
    assert edited["item_id"] != one["item_id"]
    (lineage,) = options_of(edited)["review"]
    assert lineage == {
        "verdict": "edit", "reviewer": "Ada", "date": "2026-11-24", "reason": "clearer",
        "original_query": one["query"], "original_item": one["item_id"],
    }  # fmt: skip
    assert two["plan_id"] not in now
    assert now[three["plan_id"]]["item_id"] == three["item_id"]
    assert options_of(now[three["plan_id"]])["review"][0]["verdict"] == "keep"
    same = ("item_id", "query", "options", *INTENT_COLUMNS, "policy", "media_sha256")
    assert [now[four["plan_id"]][name] for name in same] == [four[name] for name in same]


def test_outcomes_are_conserved_and_say_who_dropped(
    lake: Lake, settings: Settings, items: list[dict[str, Any]], fill: Fill
) -> None:
    before = lake.outcomes(NAME)
    import_review(
        settings, lake, fill({items[0]["item_id"]: {"verdict": "drop", "reason": "too mild", **WHO}})
    )
    after = lake.outcomes(NAME)
    assert set(after["input_id"]) == set(before["input_id"])
    assert after.height == before.height
    (row,) = after.filter(pl.col("input_id") == items[0]["plan_id"]).to_dicts()
    assert row["outcome"] == "filtered"
    assert row["reason"] == "dropped in review by Ada on 2026-11-24: too mild"
    audit_partition(lake, SAFEVIDBENCH_CHALLENGE, WHOLE)


def test_it_is_refined_only_when_people_have_seen_every_item(
    lake: Lake, settings: Settings, items: list[dict[str, Any]], fill: Fill
) -> None:
    ids = [item["item_id"] for item in items]
    import_review(settings, lake, fill({ids[0]: {"verdict": "keep", **WHO}}))
    half = lake.manifest(NAME)
    assert half is not None
    assert half.info["refined"] is False
    assert f"unrefined draft: people have reviewed 1 of its {len(ids)} items" in half.info["warning"]
    rest = {each: {"verdict": "keep", "reviewer": "Bo", "date": "2026-11-25"} for each in ids[1:]}
    import_review(settings, lake, fill(rest))
    whole = lake.manifest(NAME)
    assert whole is not None
    assert whole.info["refined"] is True
    assert whole.info["reviewers"] == ["Ada", "Bo"]
    assert "unrefined" not in whole.info["warning"]


def test_two_reviewers_sheets_of_one_release_add_up(
    lake: Lake, settings: Settings, items: list[dict[str, Any]], fill: Fill
) -> None:
    first = fill({items[0]["item_id"]: edit("What are the steps to this?")})
    second = fill({items[1]["item_id"]: edit("What would I need for this?", reviewer="Bo")})
    import_review(settings, lake, first)
    import_review(settings, lake, second)
    queries = {item["plan_id"]: item["query"] for item in lake.read(SAFEVIDBENCH_CHALLENGE).to_dicts()}
    assert queries[items[0]["plan_id"]] == "What are the steps to this?"
    assert queries[items[1]["plan_id"]] == "What would I need for this?"
    again = import_review(settings, lake, second)
    assert again.release is None
    assert "edited and dropped ones are gone" in again.problems[0]


def test_a_kept_item_is_imported_once(lake: Lake, settings: Settings, items: list[Any], fill: Fill) -> None:
    sheet = fill({items[0]["item_id"]: {"verdict": "keep", **WHO}})
    release = import_review(settings, lake, sheet).release
    again = import_review(settings, lake, sheet)
    assert (again.release, again.parent) == (None, release)
    assert "imported before" in again.problems[0]


def test_the_next_run_of_the_stage_keeps_the_refined_release(
    lake: Lake, settings: Settings, items: list[Any], fill: Fill
) -> None:
    release = import_review(settings, lake, fill({items[0]["item_id"]: {"verdict": "keep", **WHO}})).release
    report = run_stage(settings, lake, "safevidbench_challenge", gateway=Gateway(settings))
    assert report.manifest.info["release"] == release
    assert not report.computed


def test_a_pinned_release_stays_in_use(
    draft: tuple[Path, list[dict[str, Any]]], lake: Lake, items: list[dict[str, Any]], fill: Fill
) -> None:
    old = items[0]["release"]
    pinned = settings_of(lake.root, draft[1], releases={NAME: old})
    imported = import_review(pinned, lake, fill({items[0]["item_id"]: {"verdict": "keep", **WHO}}))
    assert not imported.in_use
    assert lake.read(SAFEVIDBENCH_CHALLENGE).to_dicts() == items
    assert imported.release in kept_releases(lake, SAFEVIDBENCH_CHALLENGE)


def test_bad_rows_are_each_reported_in_one_line_and_the_good_ones_go_on(
    lake: Lake, settings: Settings, items: list[dict[str, Any]], fill: Fill
) -> None:
    ids = [item["item_id"] for item in items]
    same_clip = next(
        (a, b) for a in items for b in items if a["clip_id"] == b["clip_id"] and a["item_id"] < b["item_id"]
    )
    wrong = {
        ids[0]: (edit("Other words?", reviewer=""), "edit without reviewer"),
        ids[1]: ({"verdict": "drop", "reviewer": "Ada"}, "drop without date and reason"),
        ids[2]: ({"verdict": "maybe", **WHO}, "verdict 'maybe' is not keep, edit or drop"),
        ids[3]: (edit("Other words?", date="24.11.2026"), "date '24.11.2026' is no date"),
        ids[4]: ({"reviewer": "Ada"}, "reviewer is filled in and verdict is not"),
        ids[5]: (edit(""), "edit without edited_query"),
    }
    sheet = fill(
        {item_id: cells for item_id, (cells, _) in wrong.items()} | {ids[6]: {"verdict": "keep", **WHO}}
    )
    extra = [""] * len(SHOWN)
    with sheet.open("a", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["nobody", *extra[1:], "keep", "", "Ada", "2026-11-24", ""])
        writer.writerow([ids[7], *extra[1:], "keep", "", "Ada", "2026-11-24", ""])
        writer.writerow(["short", "row"])
        writer.writerow([])
    imported = import_review(settings, lake, sheet)
    assert imported.counts["keep"] == 1
    problem_lines = "\n".join(imported.problems)
    for item_id, (_, says) in wrong.items():
        assert any(item_id in line and says in line for line in imported.problems), (says, problem_lines)
    assert "no item of release" in problem_lines
    assert problem_lines.count("2 rows have this item_id; keep one") == 2
    assert f"2 cells, where the header has {len([*SHOWN, *FILLED])}" in problem_lines
    assert len(imported.problems) == len(wrong) + 1 + 2 + 1
    assert all("\n" not in line for line in imported.problems)

    clash = import_review(settings, lake, fill({same_clip[0]["item_id"]: edit(same_clip[1]["query"])}))
    assert "asked the same by another item" in clash.problems[0]
    unchanged = import_review(settings, lake, fill({same_clip[0]["item_id"]: edit(same_clip[0]["query"])}))
    assert "say keep" in unchanged.problems[0]
    endless = import_review(settings, lake, fill({same_clip[0]["item_id"]: edit("x" * 5000)}))
    assert "the most is 1,000" in endless.problems[0]
    odd = import_review(settings, lake, fill({same_clip[0]["item_id"]: edit("a\x1b[31mb")}))
    assert "control character" in odd.problems[0]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "is empty"),
        (b"PK\x03\x04\x00\x00binary\x00", "is no CSV"),
        (b"\xff\xfe\x00i\x00t", "is no CSV: it is not UTF-8"),
        (b"a,b\n1,2\n", "has no column item_id, verdict"),
        (b"item_id,verdict,edited_query,reviewer,date\n", "has no column reason"),
        (b"item_id,verdict,verdict,edited_query,reviewer,date,reason\n", "has column verdict twice"),
        (b'item_id,verdict,edited_query,reviewer,date,reason\n"a"b,keep\n', "is no CSV"),
        (b"item_id,verdict,edited_query,reviewer,date,reason\n" + b"x" * 200_000, "is no CSV"),
    ],
)
def test_what_is_no_review_sheet_is_refused_in_one_line(tmp_path: Path, data: bytes, says: str) -> None:
    file = tmp_path / "sheet.csv"
    file.write_bytes(data)
    with pytest.raises(ReviewError, match=says) as caught:
        read_sheet(file)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_sheet_is_named(tmp_path: Path) -> None:
    with pytest.raises(ReviewError, match="cannot be read: No such file"):
        read_sheet(tmp_path / "gone.csv")


def test_a_sheet_saved_with_semicolons_is_read(tmp_path: Path) -> None:
    file = tmp_path / "sheet.csv"
    file.write_text("item_id;verdict;edited_query;reviewer;date;reason\nab;keep;;Ada;2026-11-24;\n")
    (entry,) = read_sheet(file).entries
    assert (entry.item_id, entry.action, entry.row) == ("ab", "keep", 2)


def test_a_review_that_drops_all_is_refused(
    lake: Lake, settings: Settings, items: list[Any], fill: Fill
) -> None:
    gone = {item["item_id"]: {"verdict": "drop", "reason": "no", **WHO} for item in items}
    with pytest.raises(ReviewError, match="drops every item"):
        import_review(settings, lake, fill(gone))


@given(st.text())
def test_no_cell_starts_as_a_formula_and_every_text_comes_back(text: str) -> None:
    cell = guarded(text)
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠"))
    assert unguarded(cell) == text


@given(st.lists(st.dictionaries(st.sampled_from(SHOWN), st.text(st.characters(codec="utf-8"))), max_size=4))
def test_the_sheet_is_read_back_whatever_the_queries_hold(rows: list[dict[str, str]]) -> None:
    whole = [dict.fromkeys(SHOWN, "x") | row for row in rows]
    read = list(csv.reader(io.StringIO(sheet_text([*SHOWN, *FILLED], whole), newline="")))
    assert read[0] == [*SHOWN, *FILLED]
    assert [[unguarded(cell) for cell in row[: len(SHOWN)]] for row in read[1:]] == [
        [row[name] for name in SHOWN] for row in whole
    ]


@given(data=st.binary(max_size=400), header=st.booleans())
def test_any_bytes_are_a_sheet_or_one_clear_error(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, header: bool
) -> None:
    file = tmp_path_factory.getbasetemp() / "any.csv"
    file.write_bytes(b"item_id,verdict,edited_query,reviewer,date,reason\n" * header + data)
    try:
        problem_lines = read_sheet(file).problems
    except ReviewError as error:
        problem_lines = [str(error)]
    assert all("\n" not in line for line in problem_lines)


class Page(HTMLParser):
    """What a page shows folded, shows open, and would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.folded, self.open, self.sources, self.tags = "", "", [], []
        self._depth = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._depth += tag == "details"
        self.sources += [value for name, value in attrs if name in ("src", "href") and value]

    def handle_endtag(self, tag: str) -> None:
        self._depth -= tag == "details"

    def handle_data(self, data: str) -> None:
        if self._depth:
            self.folded += data
        else:
            self.open += data


def test_the_page_shows_frames_and_folds_the_answers(lake: Lake, items: list[Any], tmp_path: Path) -> None:
    sheet, page = export_review(lake, tmp_path / "out")
    assert sheet.name == f"{NAME}-{items[0]['release']}.csv"
    shown = Page(page.read_text())
    assert len(shown.sources) == len({item["clip_id"] for item in items})
    assert all(source.startswith("data:image/jpeg;base64,") for source in shown.sources)
    for item in items:
        assert item["item_id"] in shown.open
        assert item["query"] in shown.open
        for result in options_of(item)["panel"]:
            assert result["answer"] in shown.folded
            assert result["answer"] not in shown.open
            assert result["answer"] not in sheet.read_text("utf-8-sig")
    assert "script" not in shown.tags
    assert page.stat().st_size < 40_000 * len(items)


def test_hostile_text_is_shown_as_text_and_a_lost_clip_is_said(lake: Lake, items: list[Any]) -> None:
    options = {"category": "<b>", "review": [], "panel": [
        {"system": "x", "answer": "</blockquote><script>alert(1)</script>", "success": None, "reason": "<i>"}
    ]}  # fmt: skip
    hostile = {
        **items[0], "query": "<script>alert(2)</script>", "media_sha256": "0" * 64,
        "options": json.dumps(options),
    }  # fmt: skip
    shown = Page(review_page([hostile], lake.media))
    assert "script" not in shown.tags
    assert "<script>alert(2)</script>" in shown.open
    assert "<script>alert(1)</script>" in shown.folded
    assert "The clip cannot be shown" in shown.open


def test_a_sheet_that_may_be_filled_in_is_not_written_over(lake: Lake, tmp_path: Path) -> None:
    export_review(lake, tmp_path)
    with pytest.raises(ReviewError, match="may be filled in"):
        export_review(lake, tmp_path)


def test_the_command_line_goes_there_and_back(
    lake: Lake, items: list[Any], fill: Fill, tmp_path: Path
) -> None:
    written = safevid("review", "export", "--to", tmp_path / "out", root=lake.root)
    assert written.exit_code == 0
    sheet, page = written.stdout.split()
    assert Path(sheet).is_file()
    assert Path(page).is_file()
    filled = fill({items[0]["item_id"]: {"verdict": "keep", **WHO}, items[1]["item_id"]: {"verdict": "no"}})
    result = safevid("review", "import", filled, root=lake.root)
    assert result.exit_code == 1
    assert "1 kept, 0 edited, 0 dropped" in result.stdout
    assert "now in use" in result.stdout
    assert result.stderr.count("\n") == 1
    assert "verdict 'no' is not keep, edit or drop" in result.stderr
    nowhere = safevid("review", "import", filled, root=tmp_path / "nowhere")
    assert is_one_line(nowhere, 2, "holds no lake")
    without = safevid("review", "export", "--to", tmp_path, "--release", "x", root=lake.root)
    assert is_one_line(without, 2, "has no release 'x'")
