"""Whether it matters to the result that packing keeps pairs of one video together in the order of training.

The gradient of a batch is the same; which pairs meet in a batch is not. The pocket policy is trained on the
release of the last ``make demo``, less a sixth of its videos, once in a free order and once in runs of up to
8 pairs a video, three seeds each; then loss, reward margin and reward accuracy are measured on the pairs of
the videos left out. Run with ``python -m benchmarks.dpo_grouping``.
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

from safevid_core.lake import Lake
from safevid_core.records import RELEASE, content_id
from safevid_core.settings import Packing, Settings, load_settings

SEEDS = (0, 1, 2)
ORDERS: dict[str, Packing] = {"free order": "pair", "runs of a video": "video"}


def split(release: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Pairs to train on and held-out pairs; twins stay together."""
    owners = [twin or clip for clip, twin in release.select("clip_id", "twin_group").iter_rows()]
    held = pl.Series([int(content_id("held out", owner)[:8], 16) % 6 == 0 for owner in owners])
    return release.filter(~held), release.filter(held)


def run(settings: Settings, folder: Path, packing: Packing, seed: int) -> dict[str, float]:
    """Figures on the held-out pairs after one training, and its seconds."""
    from safevid_core.alignment.job import Job
    from safevid_core.alignment.train import prepare

    alignment = settings.alignment.model_copy(update={"packing": packing, "save_steps": 10**6})
    job = Job(
        folder / f"{packing}-{seed}", folder / "train.parquet", seed, alignment, features=folder / "features"
    )
    job.folder.mkdir()
    trainer, _, encode = prepare(job)
    held = encode(pl.read_parquet(folder / "held.parquet")).pairs
    trainer.store_reference(held)
    start = time.perf_counter()
    trainer.train()
    return {"train_s": time.perf_counter() - start} | trainer.measure(held)


def main() -> None:
    warnings.simplefilter("ignore")
    settings = load_settings(sys.argv[1] if len(sys.argv) > 1 else "pocket")
    lake = Lake(settings.root, settings.profile)
    if not lake.partitions(RELEASE.name):
        print(
            json.dumps({"name": "dpo_grouping", "skipped": f"no release in {settings.root}: run make demo"})
        )
        return
    train, held = split(lake.read(RELEASE))
    found: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        train.write_parquet(Path(folder) / "train.parquet")
        held.write_parquet(Path(folder) / "held.parquet")
        for name, packing in ORDERS.items():
            found[name] = [run(settings, Path(folder), packing, seed) for seed in SEEDS]
    cases = []
    for figure in ("loss", "margins", "accuracies", "train_s"):
        values = {name: [each[figure] for each in runs] for name, runs in found.items()}
        ours, free = values["runs of a video"], values["free order"]
        error = ((stdev(ours) ** 2 + stdev(free) ** 2) / len(SEEDS)) ** 0.5
        cases.append(
            {
                "case": figure,
                "ours": round(mean(ours), 4),
                "peers": {"free order": round(mean(free), 4)},
                "difference": round(mean(ours) - mean(free), 4),
                "standard error": round(error, 4),
            }
        )
    print(json.dumps({"name": "dpo_grouping", "n": train.height, "held out": held.height, "cases": cases}))


if __name__ == "__main__":
    main()
