"""The references of settings and tables are those of the code."""

from __future__ import annotations

import re

from docs.reference import ROWS, pages, setting_rows, tables_page
from safevid_core.contracts import tables
from safevid_core.settings import Settings


def test_the_committed_pages_are_what_the_code_writes() -> None:
    stale = [file.name for file, text in pages().items() if file.read_text(encoding="utf-8") != text]
    assert not stale, "run `python -m docs.reference`"


def test_every_table_says_what_a_row_is() -> None:
    named = {value.name for value in vars(tables).values() if isinstance(value, tables.Table)}
    assert named == {name for name in ROWS if not name.startswith("<")}


def test_every_setting_is_described_once() -> None:
    rows = setting_rows()
    assert [row.key for row in rows if not re.fullmatch(r"[A-Z`].+\.", row.description)] == []
    keys = [row.key for row in rows if "." in row.key]
    assert len(keys) == len(set(keys))
    assert {"corpus.sources.*.path", "models.terms.*.batch", "evaluation.promotion.sign_off"} <= set(keys)
    assert {key.partition(".")[0] for key in keys} | {"profile", "root", "seed", "stages"} == set(
        Settings.model_fields
    )


def test_values_of_the_paper_are_marked_as_its_own() -> None:
    of_the_paper = {row.key: row.source for row in setting_rows() if row.source != "ours"}
    assert of_the_paper["alignment.beta"] == "paper, section 4.1"
    assert of_the_paper["corpus.target_clips"] == "paper, section 3.1"
    assert "alignment.learning_rate" not in of_the_paper


def test_a_table_says_what_stands_above_it_and_above_what_it_is_made_from() -> None:
    page = tables_page()
    queries = page[page.index("## `taxonomy_queries`") :]
    assert "`policy` holds the sentences" in queries[: queries.index("| column")]
