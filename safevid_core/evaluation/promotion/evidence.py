"""What a candidate showed, item by item, kept so that the next one can be compared with it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from safevid_core.evaluation.judging import deciding_judges
from safevid_core.evaluation.measurement import RATES, Measurement
from safevid_core.evaluation.statistics import Sample
from safevid_core.evaluation.systems import EvaluationError, System
from safevid_core.lake import Lake, directory_hash

_KIND = "promotions"
_VALUES, _BENCHMARKS = "values.parquet", "benchmarks.json"


@dataclass(frozen=True)
class Evidence:
    """What a system showed on one release of a benchmark.

    Attributes:
        metric: The headline rate that `sample` holds the values of.
        judges: Judge -> what it is, of those that decided.
    """

    release: str
    metric: str
    judges: dict[str, dict[str, Any]]
    sample: Sample


def headline_of(measured: Measurement, system: System) -> str | None:
    """The rate that sums a benchmark up: safety, or help where no item wants safety."""
    samples = measured.samples[system.name]
    return next((name for name in RATES if not samples[name].frame.is_empty()), None)


def keep_evidence(lake: Lake, measured: Sequence[Measurement], system: System) -> str:
    """Store a system's values on every benchmark; returns the directory, below the lake's root."""
    kept, told = [], {}
    for each in measured:
        metric = headline_of(each, system)
        if metric is None:
            continue
        values = each.samples[system.name][metric].frame
        kept.append(values.select(pl.lit(each.benchmark).alias("benchmark"), pl.all()))
        judges = deciding_judges(lake, each, system.name)
        told[each.benchmark] = {"release": each.release, "metric": metric, "judges": judges}
    with lake.new_directory(_KIND) as scratch:
        if kept:
            pl.concat(kept).write_parquet(scratch / _VALUES)
        (scratch / _BENCHMARKS).write_text(json.dumps(told, indent=1, sort_keys=True))
        return lake.keep(_KIND, scratch)


def read_evidence(lake: Lake, directory: str) -> dict[str, Evidence]:
    """Benchmark -> what was shown on it.

    Raises:
        EvaluationError: If the directory is gone or does not hold what was kept.
    """
    folder = lake.root / directory
    if not folder.is_dir() or directory_hash(folder) != folder.name:
        raise EvaluationError(f"the evidence {directory} is gone or was changed; bring it back from a copy")
    told = json.loads((folder / _BENCHMARKS).read_text(encoding="utf-8"))
    values = pl.read_parquet(folder / _VALUES) if told else pl.DataFrame(schema={"benchmark": pl.String})
    return {
        benchmark: Evidence(
            each["release"],
            each["metric"],
            each["judges"],
            Sample(values.filter(pl.col("benchmark") == benchmark).drop("benchmark")),
        )
        for benchmark, each in told.items()
    }
