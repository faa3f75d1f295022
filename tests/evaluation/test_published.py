"""Published figures stand beside ours only in their own setting; else there is a reason, in words."""

from __future__ import annotations

from typing import Any

import pytest

from safevid_core.benchmarks.benchmark import OUTSIDE
from safevid_core.measurement.measurement import Measurement
from safevid_core.reporting.published import PUBLISHED, Published, beside_published, why_not
from safevid_core.settings import Settings, load_settings
from tests.evaluation.made_measurement import make_measurement

POLICY = "llava_next_video_7b"
BASE = next(each for each in PUBLISHED if each.benchmark == "safevidbench_base")
STRONGREJECT = next(each for each in PUBLISHED if each.benchmark == "strongreject")
MMBENCH = next(each for each in PUBLISHED if each.benchmark == "mmbench_video")


def settings_of(profile: str = "paper", **overrides: Any) -> Settings:
    return load_settings(profile, overrides=overrides)


def measured(
    settings: Settings,
    published: Published = BASE,
    items: int = 1380,
    systems: tuple[str, ...] = ("@0", "@1"),
) -> Measurement:
    rates = {"@0": 0.54, "@1": 0.96, "@0.5": 0.9}
    named = {f"{POLICY}{each}": {published.metric: rates[each]} for each in systems}
    return make_measurement(settings, named, items, published.benchmark)


def test_in_the_papers_own_setting_ours_stand_beside() -> None:
    settings = settings_of()
    found = beside_published(settings, measured(settings), BASE)
    assert found.why_not is None
    assert found.before is not None
    assert found.after is not None
    assert found.change is not None
    assert found.before.value == pytest.approx(0.54, abs=1e-3)
    assert found.after.value == pytest.approx(0.96, abs=1e-3)
    assert found.change.value == pytest.approx(0.42, abs=2e-3)


@pytest.mark.parametrize(
    ("settings", "made", "says"),
    [
        (settings_of("workstation"), {}, "this run is of profile workstation"),
        (settings_of(alignment={"base": {"path": "another/model"}}), {}, "this run aligns another/model"),
        (settings_of(), {"items": 1379}, "it is over 1,380 items; this run has 1,379"),
        (settings_of(), {"systems": ("@1",)}, "is not measured both before and after alignment"),
        (settings_of(), {"systems": ("@0", "@0.5")}, "this run aligned on 50% of them"),
        (
            settings_of(evaluation={"files": {"safevidbench_base": {"path": "x", "max_items": 9}}}),
            {},
            "this run asks 9 of its items at most",
        ),
    ],
)
def test_any_other_setting_is_named(settings: Settings, made: dict[str, Any], says: str) -> None:
    found = beside_published(settings, measured(settings, **made), BASE)
    assert says in str(found.why_not)
    assert (found.before, found.after, found.change) == (None, None, None)


def test_what_is_not_measured_is_named() -> None:
    assert why_not(settings_of(), None, BASE) == "safevidbench_base is not measured in this run"


def test_strongrejects_helpful_rate_never_stands_beside() -> None:
    settings = settings_of()
    found = beside_published(settings, measured(settings, STRONGREJECT, 346), STRONGREJECT)
    assert "not defined closely enough to compare" in str(found.why_not)


def test_an_outside_benchmark_has_the_size_of_its_official_files() -> None:
    settings = settings_of()
    (size,) = OUTSIDE["mmbench_video"].rows
    assert why_not(settings, measured(settings, MMBENCH, size), MMBENCH) is None
    assert f"it is over {size:,} items" in str(why_not(settings, measured(settings, MMBENCH, 10), MMBENCH))


def test_the_rates_are_whole_numbers_of_items() -> None:
    for text in (BASE.before, BASE.after):
        share = float(text.removesuffix("%")) / 100
        assert round(100 * round(share * 1380) / 1380, 2) == pytest.approx(100 * share)
