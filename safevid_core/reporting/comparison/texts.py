"""A comparison of two runs as a short Markdown text and as plain data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from safevid_core.contracts.markdown import markdown_table
from safevid_core.measurement.measurement import COMPARED
from safevid_core.reporting.comparison.runs import BenchmarkComparison, Move, RunComparison
from safevid_core.reporting.report import escape_markdown, p_value, shift, shown
from safevid_core.reporting.tables import about

_HEADS = ("system", "figure", "against", "ours", "change", "interval", "items", "p")


def as_json(found: RunComparison) -> dict[str, Any]:
    """The comparison as plain data; values are fractions, unknown figures null."""
    return {
        "ours": found.ours,
        "against": found.against,
        "only_in_one": found.only,
        "benchmarks": [
            {
                "benchmark": of.benchmark,
                "release": of.release,
                "refused": of.refused,
                "systems": [
                    {
                        "system": each.system,
                        "changes": [vars(change) for change in each.changes],
                        "explanation": each.explanation,
                        "metrics": [_move_json(move) for move in each.moves],
                    }
                    for each in of.systems
                ],
            }
            for of in found.benchmarks
        ],
    }


def _move_json(move: Move) -> dict[str, Any]:
    change = move.change
    return {
        "metric": move.metric,
        "ours": move.ours.value,
        "against": move.against.value,
        "change": change.value,
        "ci_low": change.ci_low,
        "ci_high": change.ci_high,
        "p_value": change.p_value,
        "n": change.n,
    }


def as_markdown(found: RunComparison) -> str:
    """The same in short: what changed, how the headline figures moved, and what that can be laid to."""
    lines = [
        "# Two runs",
        "",
        f"Ours: {escape_markdown(found.ours)}. Against: {escape_markdown(found.against)}. A change is ours "
        "less the other, over the items with a verdict in both, with its 95% interval.",
    ]
    for of in found.benchmarks:
        lines += ["", f"## {escape_markdown(about(of.benchmark).title)}", ""]
        lines += list(_benchmark_lines(of))
    if found.only:
        lines += ["", "## In one run only", "", *(f"- {escape_markdown(each)}." for each in found.only)]
    return "\n".join(lines) + "\n"


def _benchmark_lines(of: BenchmarkComparison) -> Iterator[str]:
    """The figures of the systems that something became of; the others in one line."""
    if of.refused is not None:
        yield f"Not compared: {escape_markdown(of.refused)}."
        return
    yield f"Release {of.release} in both."
    different = [each for each in of.systems if each.is_different]
    if different:
        moved = (_cells(each.system, move) for each in different for move in each.moves if _is_shown(move))
        yield from ("", markdown_table(_HEADS, moved), "")
    for each in different:
        yield f"- {escape_markdown(each.system)}: {escape_markdown(each.explanation)}."
        for change in each.changes:
            sides = (escape_markdown(side) or "none" for side in (change.against, change.ours))
            yield f"  - {change.what}: {' → '.join(sides)}"
    same = [escape_markdown(each.system) for each in of.systems if not each.is_different]
    if same:
        yield from ("", f"Nothing that is recorded changed, and no figure moved: {', '.join(same)}.")


def _is_shown(move: Move) -> bool:
    return move.metric in COMPARED


def _cells(system: str, move: Move) -> tuple[str, ...]:
    low, high = (shift(bound, move.scale) for bound in (move.change.ci_low, move.change.ci_high))
    return (
        escape_markdown(system),
        move.metric.replace("_", " "),
        shown(move.against.value, move.scale),
        shown(move.ours.value, move.scale),
        shift(move.change.value, move.scale),
        f"{low} to {high}",
        f"{move.change.n:,}",
        p_value(move.change.p_value),
    )
