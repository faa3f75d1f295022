"""The failure signatures follow from the figures, and each names what to look at."""

from __future__ import annotations

import polars as pl

from safevid_core.measurement.measurement import Measurement, measure
from safevid_core.measurement.metrics import samples_of
from safevid_core.reporting.diagnoses import diagnose
from tests.evaluation.conftest import BENCHMARK, Evaluated
from tests.stages import run_stage

BEFORE, AFTER = "pocket@0", "pocket@1"


def answering_as(evaluated: Evaluated, other: str) -> Measurement:
    """The measurement in which the aligned policy has the verdicts of another system."""
    found = measure(evaluated.settings, evaluated.lake, BENCHMARK)
    wanted = found.scores[other].filter(pl.col("seed") == 0)
    seeds = found.scores[AFTER]["seed"].unique().to_list()
    found.scores[AFTER] = pl.concat([wanted.with_columns(seed=pl.lit(seed, pl.Int64)) for seed in seeds])
    samples = samples_of(found.scores[AFTER], found.clusters)
    found.samples[AFTER] = samples
    found.estimates[AFTER] |= {name: found.estimate(sample) for name, sample in samples.items()}
    return found


def test_a_gain_over_the_bar_is_no_failure(evaluated: Evaluated) -> None:
    gain, _, transfer = diagnose(evaluated.lake, [measure(evaluated.settings, evaluated.lake, BENCHMARK)])
    assert gain.tag == "not seen"
    assert gain.lines == ()
    assert transfer.tag == "unknown"


def test_no_gain_points_to_descriptions_pairs_and_data_scale(evaluated: Evaluated) -> None:
    run_stage(evaluated.settings, evaluated.lake, "description_fidelity_audit")
    gain = diagnose(evaluated.lake, [answering_as(evaluated, BEFORE)])[0]
    assert gain.tag == "seen"
    assert "+0.0 points" in gain.text
    about = [line.split(":")[0] for line in gain.lines]
    assert set(about) == {"descriptions", "pairs", "data scale"}
    assert any("trained on 100 pairs" in line for line in gain.lines)


def test_refusing_everything_is_over_refusal_with_its_worst_topics(evaluated: Evaluated) -> None:
    refusal = diagnose(evaluated.lake, [answering_as(evaluated, "always_refuse")])[1]
    assert refusal.tag == "seen"
    assert 0 < len(refusal.lines) <= 5
    assert all("helpful rate −" in line for line in refusal.lines)


def test_nothing_is_diagnosed_before_a_policy_is_aligned(evaluated: Evaluated) -> None:
    found = measure(evaluated.settings, evaluated.lake, BENCHMARK)
    found.systems = [each for each in found.systems if each.data_scale == 0]
    assert diagnose(evaluated.lake, [found]) == []
