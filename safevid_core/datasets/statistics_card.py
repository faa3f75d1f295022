"""The section of the data set card with the pair statistics and their plots."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from safevid_core.contracts.markdown import markdown_table
from safevid_core.datasets.pair_plots import FOLDER
from safevid_core.datasets.pair_statistics import ALL, FILE, FLAGGED, MEASURES, PairStatistics
from safevid_core.datasets.pair_style import SAMPLE, STYLE_WITHIN_LIMITS, limits
from safevid_core.preferences.style import FOLDS
from safevid_core.settings.datasets import DatasetSettings
from safevid_core.statistics.intervals import Estimate

_PLAIN = frozenset({"pairs", "clips", "chosen_words", "rejected_words"})


def statistics_section(statistics: PairStatistics, plots: Sequence[str], settings: DatasetSettings) -> str:
    """The text of the section, without its head.

    Args:
        plots: Paths of the plots, relative to the card.
    """
    rows = statistics.of(ALL, *MEASURES).iter_rows(named=True)
    parts = [
        f"`{FILE}` holds these figures by expectation, scene, subcategory and style. A share has a 95% "
        "interval over source videos. The column `n` says on how many pairs or queries a figure rests: the "
        f"classifiers, the details and the language rest on at most {SAMPLE:,} pairs, and refusals and "
        f"scripts of imported pairs on at most {FLAGGED:,}. Words of refusal, details, sentence ends and "
        "languages are found by patterns. Such a figure shows where to look and is no error rate.",
        markdown_table(("measure", "what it is", "value", "95% interval", "n"), map(_line, rows)),
        "### Style\n\n" + _style(statistics, settings),
    ]
    if plots:
        parts.append("### Plots\n\n" + "\n\n".join(f"![{_title(path)}]({path})" for path in plots))
    return "\n\n".join(parts)


def _line(row: dict[str, Any]) -> tuple[str, str, str, str, str]:
    name, value = row["measure"], row["value"]
    share = row["ci_low"] is not None
    interval = f"{row['ci_low']:.1%} to {row['ci_high']:.1%}" if share else ""
    written = f"{value:.1%}" if share else f"{value:,g}" if name in _PLAIN else f"{value:+g}"
    return f"`{name}`", MEASURES[name], written, interval, f"{row['n']:,}"


def _style(statistics: PairStatistics, settings: DatasetSettings) -> str:
    style = statistics.style
    if style.words.value is None:
        return "The classifiers are not measured: the pairs are of fewer than two source videos."
    found = {"words": style.words, "length": style.length}
    lines = [
        f"- By {seen} alone a classifier tells the chosen response in {_share(found[seen])} of the pairs. "
        + _limit(found[seen], setting, limit)
        for seen, (setting, limit) in limits(settings).items()
    ]
    telling = (
        f"Most telling for a chosen response: {', '.join(style.for_chosen) or 'no word'}. For a rejected "
        f"one: {', '.join(style.for_rejected) or 'no word'}."
    )
    how = (
        f"Each classifier is a logistic regression on {style.sampled:,} pairs in {FOLDS}-fold "
        f"cross-validation by source video. 50% is chance. The check `{STYLE_WITHIN_LIMITS.name}` refuses a "
        "release if a lower bound is above its limit."
    )
    return "\n".join((how, "", *lines, "", telling))


def _share(accuracy: Estimate) -> str:
    return f"{accuracy.value:.2%} ({accuracy.ci_low:.2%} to {accuracy.ci_high:.2%})"


def _limit(accuracy: Estimate, setting: str, limit: float | None) -> str:
    if limit is None:
        return f"No limit is set (`{setting}: null`), so no accuracy refuses this release."
    above = accuracy.ci_low is not None and accuracy.ci_low > limit
    return f"The limit `{setting}` is {limit:.0%}, and this release is {'ABOVE' if above else 'within'} it."


def _title(path: str) -> str:
    return path.removeprefix(f"{FOLDER}/").removesuffix(".svg").replace("_", " ")
