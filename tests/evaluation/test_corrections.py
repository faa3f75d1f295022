"""Rates corrected for a judge's errors, where people's labels say what these are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from safevid_core.contracts.tables import BENCHMARK_SCORES, JUDGE_VALIDATION
from safevid_core.measurement.corrections import MIN_LABELS, Correction, corrections
from safevid_core.measurement.measurement import Measurement
from safevid_core.reporting.report import _corrected, _environment
from safevid_core.storage.lake import WHOLE, Lake
from tests.evaluation.made_measurement import make_measurement
from tests.evaluation.small_lake import put, settings_for

SYSTEM, BENCHMARK = "pocket@1", "safevidbench_base"
RUBRIC = {"model": "openai/judge", "revision": "r1", "version": "7", "identity": "x"}
GUARD = {"model": "openai/guard", "revision": "r2", "version": "2", "identity": "y"}


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "safevid", "pocket")


def measured(lake: Lake, *judges: str, safety: float = 0.7) -> Measurement:
    """300 items with each metric's verdicts, by these judges."""
    found = make_measurement(
        settings_for(lake.root), {SYSTEM: {"safety_rate": safety, "helpful_rate": 0.8}}, 300, BENCHMARK
    )
    row = {"response_id": "r1", "system": SYSTEM, "panel": ",".join(judges), "success": True}
    known = {"rubric": RUBRIC, "guard": GUARD}
    put(
        lake,
        BENCHMARK_SCORES,
        f"{SYSTEM}|{BENCHMARK}",
        [row],
        judges={judge: known[judge] for judge in judges},
        panel=list(judges),
    )
    found.scores[SYSTEM] = BENCHMARK_SCORES.frame([row])
    return found


def labels(
    judge: str,
    recall: tuple[int, int],
    specificity: tuple[int, int],
    metric: str = "safety_rate",
    **judge_entry: Any,
) -> list[dict[str, Any]]:
    """Rows of `judge_validation`: (recognised, labelled) failures and successes."""
    return [
        {
            "validation_id": f"{judge} {metric} {measure}",
            "judge": judge,
            "source": "people",
            "measure": measure,
            "grouping": "metric",
            "category": metric,
            "n": n,
            "value": number / n if n else None,
            **judge_entry,
        }
        for measure, (number, n) in (("recall", recall), ("specificity", specificity))
    ]


def safety(found: list[Correction]) -> Correction:
    (wanted,) = (each for each in found if each.metric == "safety_rate")
    return wanted


def validated(lake: Lake, rows: list[dict[str, Any]]) -> None:
    put(lake, JUDGE_VALIDATION, WHOLE, rows)


IDENTITY = {name: RUBRIC[name] for name in ("model", "revision", "version")}


def test_a_rate_is_corrected_by_rogan_and_gladen(lake: Lake) -> None:
    found = measured(lake, "rubric")
    validated(lake, labels("rubric", (45, 50), (160, 200), **IDENTITY))
    correction = safety(corrections(lake, [found]))
    # The judge recognises 80% of the successes and 90% of the failures: (0.7 + 0.9 - 1) / (0.8 + 0.9 - 1).
    assert correction.corrected.value == pytest.approx(0.6 / 0.7)
    assert (correction.failures, correction.successes, correction.why) == (50, 200, None)
    low, high = correction.corrected.ci_low, correction.corrected.ci_high
    assert low is not None
    assert high is not None
    rate = found.estimates[SYSTEM]["safety_rate"]
    assert high - low > (rate.ci_high or 0) - (rate.ci_low or 0)
    assert correction.as_dict()["corrected"] == correction.corrected.value


def test_each_metric_has_labels_of_its_own(lake: Lake) -> None:
    found = measured(lake, "rubric")
    validated(lake, labels("rubric", (45, 50), (160, 200), "helpful_rate", **IDENTITY))
    by_metric = {each.metric: each for each in corrections(lake, [found])}
    assert by_metric["helpful_rate"].why is None
    assert by_metric["safety_rate"].why == "no labels from people on what rubric says of such responses"
    assert by_metric["safety_rate"].corrected.value is None


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ([], "no labels from people on what rubric says of such responses"),
        (labels("rubric", (9, 10), (90, 100), **{**IDENTITY, "version": "6"}), "no labels from people"),
        (labels("rubric", (9, 10), (90, 100), **{**IDENTITY, "model": "other"}), "no labels from people"),
        (labels("guard", (9, 10), (90, 100), **IDENTITY), "no labels from people"),
        (
            labels("rubric", (3, MIN_LABELS - 1), (90, 100), **IDENTITY),
            "people labelled 9 failures and 100 successes; 10 of each are needed",
        ),
        (labels("rubric", (2, 20), (10, 20), **IDENTITY), "on 40 labels rubric does no better than chance"),
    ],
)  # fmt: skip
def test_a_rate_without_labels_that_bear_it_is_uncalibrated(
    lake: Lake, rows: list[dict[str, Any]], why: str
) -> None:
    found = measured(lake, "rubric")
    validated(lake, rows)
    correction = safety(corrections(lake, [found]))
    assert correction.corrected.value is None
    assert (correction.why or "").startswith(why)
    assert _corrected(lake, [found])["any"] is False


def test_nothing_validated_is_uncalibrated(lake: Lake) -> None:
    assert safety(corrections(lake, [measured(lake, "rubric")])).why is not None


def test_a_panel_is_corrected_by_its_own_labels_and_versions(lake: Lake) -> None:
    found = measured(lake, "rubric", "guard")
    validated(lake, labels("panel", (45, 50), (160, 200), version="rubric/7,guard/2"))
    assert safety(corrections(lake, [found])).corrected.value == pytest.approx(0.6 / 0.7)
    validated(lake, labels("panel", (45, 50), (160, 200), version="rubric/6,guard/2"))
    assert safety(corrections(lake, [found])).why is not None


def test_all_verdicts_alike_still_have_an_interval(lake: Lake) -> None:
    found = measured(lake, "rubric", safety=1.0)
    validated(lake, labels("rubric", (45, 50), (198, 200), **IDENTITY))
    figure = safety(corrections(lake, [found])).corrected
    assert figure.value == 1.0
    assert figure.ci_low is not None
    assert figure.ci_low < 1.0


def test_a_rate_that_the_labels_do_not_allow_is_uncalibrated(lake: Lake) -> None:
    """A judge that misses every fifth success of the labels cannot see 300 successes of 300."""
    found = measured(lake, "rubric", safety=1.0)
    validated(lake, labels("rubric", (45, 50), (160, 200), **IDENTITY))
    assert (
        safety(corrections(lake, [found])).why
        == "rubric errs otherwise here than on the 250 labelled responses"
    )


def test_the_page_says_corrected_or_uncalibrated(lake: Lake) -> None:
    found = measured(lake, "rubric")
    page = _environment(autoescape=True).get_template("judges.html.j2")
    assert "uncalibrated</span> No rate is corrected" in page.render(
        judges=[], corrected=_corrected(lake, [found])
    )
    validated(lake, labels("rubric", (45, 50), (160, 200), **IDENTITY))
    rendered = page.render(judges=[], corrected=_corrected(lake, [found]))
    assert "<b>85.7%</b>" in rendered
    assert "50 failures, 200 successes" in rendered
    # The helpful rate has no labels of its own.
    assert rendered.count(">uncalibrated<") == 1
