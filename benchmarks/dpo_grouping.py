"""Whether it matters to the result that packing keeps pairs of one video together in the order of training.

The gradient of a batch is the same; which pairs meet in a batch is not. The pocket policy is trained on the
release of the last ``make demo``, less a sixth of its videos, once in a free order and once in runs of up to
2, 4 and 8 pairs a video, with five seeds each; then loss, reward margin and reward accuracy are measured on
the pairs of the videos left out. Run with ``python -m benchmarks.dpo_grouping``, or name the runs:
``python -m benchmarks.dpo_grouping 4 8``.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
import warnings
from pathlib import Path
from statistics import mean, stdev

import polars as pl

from safevid_core.alignment.job import with_places
from safevid_core.alignment.reference import read_reference
from safevid_core.contracts.ids import content_id
from safevid_core.contracts.tables import RELEASE
from safevid_core.settings import Settings, load_settings
from safevid_core.storage.lake import Lake

SEEDS = (0, 1, 2, 3, 4)
RUNS = (2, 4, 8)
FREE = 1  # runs of one pair: a free order


def split(release: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Pairs to train on and held-out pairs; twins stay together."""
    owners = [twin or clip for clip, twin in release.select("clip_id", "twin_group").iter_rows()]
    held = pl.Series([int(content_id("held out", owner)[:8], 16) % 6 == 0 for owner in owners])
    return release.filter(~held), release.filter(held)


def train(settings: Settings, folder: Path, run: int, seed: int) -> dict[str, float]:
    """Figures on the held-out pairs after one training in runs of so many pairs, and its seconds."""
    from safevid_core.alignment.job import Job
    from safevid_core.alignment.train import prepare

    changes = {"packing": "video", "pairs_a_tree": run, "save_steps": 10**6, "save_minutes": None}
    job = Job(
        folder / f"{run}-{seed}",
        folder / "train.parquet",
        seed,
        settings.alignment.model_copy(update=changes),
        features=folder / "features",
        reference=folder / "reference.parquet",
        reference_pairs=folder / "release.parquet",
    )
    job.folder.mkdir()
    trainer, _, encode = prepare(job)
    held = encode(pl.read_parquet(folder / "held.parquet")).pairs
    read_reference(folder / "reference.parquet", held)
    start = time.perf_counter()
    trainer.train()
    return {"train_s": time.perf_counter() - start} | trainer.measure(held)


def main() -> None:
    from transformers.utils import logging

    warnings.simplefilter("ignore")
    logging.set_verbosity_error()
    settings = load_settings("pocket")
    lake = Lake(settings.root, settings.profile)
    if not lake.partitions(RELEASE.name):
        print(
            json.dumps({"name": "dpo_grouping", "skipped": f"no release in {settings.root}: run make demo"})
        )
        return
    runs = tuple(map(int, sys.argv[1:])) or RUNS
    release = with_places(lake.read(RELEASE), lake.media)
    trained_on, held = split(release)
    found: dict[int, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part, rows in (("release", release), ("train", trained_on), ("held", held)):
            rows.write_parquet(folder / f"{part}.parquet")
        for run in (FREE, *runs):
            found[run] = [train(settings, folder, run, seed) for seed in SEEDS]
    cases = [
        case(figure, run, [one[figure] for one in found[run]], [one[figure] for one in found[FREE]])
        for run in runs
        for figure in ("loss", "margins", "accuracies", "train_s")
    ]
    print(json.dumps({"name": "dpo_grouping", "n": trained_on.height, "held out": held.height,
                      "seeds": len(SEEDS), "cases": cases}))  # fmt: skip


def case(figure: str, run: int, grouped: list[float], free: list[float]) -> dict[str, object]:
    """Mean over the seeds, each seed's difference, and the standard error of its mean."""
    differences = [one - other for one, other in zip(grouped, free, strict=True)]
    return {
        "case": f"runs of {run}: {figure}",
        "ours": round(mean(grouped), 4),
        "peers": {"free order": round(mean(free), 4)},
        "difference": round(mean(differences), 4),
        "standard error": round(stdev(differences) / len(SEEDS) ** 0.5, 4),
        "spread of the seeds": round(stdev(free), 4),
    }


if __name__ == "__main__":
    main()
