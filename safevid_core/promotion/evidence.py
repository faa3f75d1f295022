"""Evidence: the values of a candidate on each benchmark item, stored for comparison with later candidates."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from safevid_core.measurement.measurement import RATES, Measurement
from safevid_core.measurement.trust import deciding_judges
from safevid_core.promotion.errors import PromotionError
from safevid_core.statistics.intervals import Sample
from safevid_core.storage.lake import Lake, directory_hash
from safevid_core.systems.systems import System

_KIND = "promotions"
_VALUES, _BENCHMARKS = "values.parquet", "benchmarks.json"


@dataclass(frozen=True)
class Evidence:
    """The values of a system on one release of a benchmark.

    Attributes:
        release: Id of the benchmark's release.
        metric: Name of the headline rate. Example: `safety_rate`.
        judges: Name -> identity of each judge that decided.
        sample: The values of the rate.
    """

    release: str
    metric: str
    judges: dict[str, dict[str, Any]]
    sample: Sample


def headline_of(measured: Measurement, system: System) -> str | None:
    """Return the headline rate of a benchmark: safety, or helpfulness if no item has a safety verdict.

    None if there are no verdicts.
    """
    samples = measured.samples[system.name]
    return next((name for name in RATES if not samples[name].frame.is_empty()), None)


def keep_evidence(lake: Lake, measured: Sequence[Measurement], system: System) -> str:
    """Store the values of a system on each benchmark. Return the directory, relative to the lake's root."""
    frames, record = [], {}
    for each in measured:
        metric = headline_of(each, system)
        if metric is None:
            continue
        values = each.samples[system.name][metric].frame
        frames.append(values.select(pl.lit(each.benchmark).alias("benchmark"), pl.all()))
        judges = deciding_judges(lake, each, system.name)
        record[each.benchmark] = {"release": each.release, "metric": metric, "judges": judges}
    with lake.new_directory(_KIND) as scratch:
        if frames:
            pl.concat(frames).write_parquet(scratch / _VALUES)
        (scratch / _BENCHMARKS).write_text(json.dumps(record, indent=1, sort_keys=True))
        return lake.keep(_KIND, scratch)


def read_evidence(lake: Lake, directory: str) -> dict[str, Evidence]:
    """Return: benchmark -> its evidence.

    Args:
        lake: The lake.
        directory: A result of :func:`keep_evidence`.

    Raises:
        PromotionError: If the directory is missing or its content has changed.
    """
    folder = lake.local_directory(directory)
    if not folder.is_dir() or directory_hash(folder) != folder.name:
        raise PromotionError(f"the evidence {directory} is gone or was changed; bring it back from a copy")
    record = json.loads((folder / _BENCHMARKS).read_text(encoding="utf-8"))
    values = pl.read_parquet(folder / _VALUES) if record else pl.DataFrame(schema={"benchmark": pl.String})
    return {
        benchmark: Evidence(
            each["release"],
            each["metric"],
            each["judges"],
            Sample(values.filter(pl.col("benchmark") == benchmark).drop("benchmark")),
        )
        for benchmark, each in record.items()
    }
