"""A Markdown table keeps its columns, whatever its cells hold."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from safevid_core.contracts.markdown import markdown_table

_CELLS = st.lists(st.sampled_from(["a", "|", "\\|", "\n", "\r", " ", "é"]), max_size=8).map("".join)


def columns(line: str) -> int:
    return len(re.findall(r"(?<!\\)\|", line)) - 1


@given(st.lists(st.lists(_CELLS, min_size=3, max_size=3), max_size=4))
def test_every_line_has_as_many_columns_as_heads(rows: list[list[str]]) -> None:
    lines = markdown_table(("a", "b|c", ""), rows).split("\n")
    assert len(lines) == 2 + len(rows)
    assert {columns(line) for line in lines} == {3}


def test_values_are_shown_as_text_and_an_escaped_pipe_is_not_escaped_again() -> None:
    assert markdown_table(("licence", "clips"), [("a|b", 2), (r"c\|d", None)]) == "\n".join(
        ("| licence | clips |", "|---|---|", r"| a\|b | 2 |", r"| c\|d | None |")
    )
