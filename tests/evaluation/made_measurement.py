"""A measurement over as many made items as one likes, with the rates that one names."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import polars as pl

from safevid_core.contracts.tables import BENCHMARK_ITEMS_SCHEMA, BENCHMARK_SCORES
from safevid_core.measurement.measurement import COMPARED, RATES, Measurement
from safevid_core.measurement.metrics import samples_of
from safevid_core.settings import Settings
from safevid_core.statistics.intervals import SAMPLE_SCHEMA, Sample
from safevid_core.systems.systems import system_of

_SCALES = {"twin_gap": "difference", "modality_gap": "difference", "mmbench_score": "score"}


def make_measurement(
    settings: Settings,
    rates: Mapping[str, Mapping[str, float]],
    items: int = 300,
    benchmark: str = "safevidbench_base",
) -> Measurement:
    """Systems by name with their rates by metric, each over `items` units of two thirds as many videos.

    The units of a higher rate include those of a lower one: differences are paired.
    """
    rows = [{"item_id": f"i{place}", "release": "r", "clip_id": f"c{place}"} for place in range(items)]
    frame = pl.DataFrame(
        {name: [row.get(name) for row in rows] for name in BENCHMARK_ITEMS_SCHEMA},
        schema=BENCHMARK_ITEMS_SCHEMA,
    )
    empty = BENCHMARK_SCORES.frame([])
    found = Measurement(
        settings,
        benchmark,
        frame,
        {f"c{place}": f"source {place}" for place in range(items)},
        dict.fromkeys(rates, empty),
        [system_of(settings, name) for name in rates],
        [],
    )
    for name, values in rates.items():
        samples = samples_of(empty, {})
        samples |= {metric: _sample(metric, value, items) for metric, value in values.items()}
        for metric in RATES:
            samples |= {f"{metric}_{counted}": samples[metric] for counted in ("all", "bound")}
        found.samples[name] = samples
        found.estimates[name] = {metric: found.estimate(each) for metric, each in samples.items()}
        found.unjudged[name] = {}
    assert set(COMPARED) <= set(samples_of(empty, {}))
    return found


def _sample(metric: str, rate: float, items: int) -> Sample:
    places = np.arange(items)
    # A fixed order in which units succeed, spread over the videos.
    order = np.random.default_rng(0).permutation(items)
    reached = (order < abs(rate) * items).astype(float) * np.sign(rate if rate else 1)
    values = 3 * reached if metric == "mmbench_score" else reached
    frame = pl.DataFrame(
        {
            "unit": [f"i{place}" for place in places],
            "cluster": [f"source {place * 2 // 3}" for place in places],
            "template": None,
            "seed": 0,
            "value": values,
        },
        schema=SAMPLE_SCHEMA,
    )
    return Sample(frame, _SCALES.get(metric, "rate"))  # type: ignore[arg-type]
