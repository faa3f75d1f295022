"""The pictures of docs/data.md, from the last line of a benchmark and from the release that it made.

Run with ``python -m docs.data_pictures FIGURES RELEASE``, where FIGURES is the output of
``python -m benchmarks.pair_factory --work FOLDER`` and RELEASE the release's folder below
``FOLDER/350000/blobs/release``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import polars as pl

from safevid_core.datasets.release_folder import shards_in

PICTURES = Path(__file__).resolve().parent / "pictures"
GROUPS = {
    "plan, release, checks": ("plan", "release", "release's checks", "planned against made"),
    "Hugging Face": ("hugging-face",),
    "JSON exports": ("inspect", "llama-factory", "llava-next", "ms-swift", "lmms-eval"),
    "trl with frames": ("trl",),
}
GOAL_MB = 3_000
TEXTS = {"prompt": "query", "chosen": "chosen response", "rejected": "rejected response"}


def draw_growth(sizes: list[dict[str, Any]], path: Path) -> None:
    """Processor seconds by part, and peak memory, by the number of pairs."""
    pyplot = _pyplot("growth")
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(8, 3.4), layout="constrained")
    pairs = [each["rows"] / 1000 for each in sizes]
    heights = [
        [sum(each["parts"][name]["cpu_s"] for name in names) for each in sizes] for names in GROUPS.values()
    ]
    left.stackplot(pairs, heights, labels=list(GROUPS), colors=("#33658a", "#86bbd8", "#9bc53d", "#f6ae2d"))
    left.set(xlabel="thousand pairs", ylabel="processor seconds", xlim=(0, None), ylim=(0, None))
    left.legend(loc="upper left", frameon=False, fontsize="small")
    right.plot(pairs, [each["total"]["mb"] for each in sizes], "o-", color="#33658a", label="measured")
    right.axhline(GOAL_MB, color="#c2554d", linestyle="--", label="goal")
    right.set(xlabel="thousand pairs", ylabel="peak memory, MB", xlim=(0, None), ylim=(0, 1.1 * GOAL_MB))
    right.legend(loc="lower right", frameon=False, fontsize="small")
    for axes in (left, right):
        axes.set_xticks(pairs)
        axes.grid(alpha=0.3)
    figure.savefig(path, metadata={"Date": None})


def draw_release(folder: Path, path: Path) -> None:
    """Words of each text and pairs of each clip of a release of generated texts."""
    pyplot = _pyplot("release")
    columns = ("clip_id", *TEXTS)
    words = [
        shard.select("clip_id", *(pl.col(name).str.count_matches(r"\S+") for name in TEXTS))
        for shard in shards_in(folder, columns)
    ]
    rows = pl.concat(words)
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
    for name, label in TEXTS.items():
        left.hist(rows[name].to_numpy(), bins=80, range=(0, 320), histtype="step", label=label)
    left.set(xlabel="words", ylabel="pairs")
    left.legend(frameon=False, fontsize="small")
    of_clip = rows.group_by("clip_id").len()["len"].value_counts().sort("len")
    right.bar(of_clip["len"].to_list(), of_clip["count"].to_list(), color="#33658a")
    right.set(xlabel="pairs of a clip", ylabel="clips")
    figure.suptitle(f"Generated texts, not SafeVid-350K: {rows.height:,} pairs", fontsize="medium")
    figure.savefig(path, metadata={"Date": None})


def _pyplot(salt: str) -> Any:
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = salt
    from matplotlib import pyplot

    return pyplot


def main() -> None:
    figures, release = map(Path, sys.argv[1:])
    draw_growth(json.loads(figures.read_text().splitlines()[-1])["sizes"], PICTURES / "pair_factory.svg")
    draw_release(release, PICTURES / "generated_release.svg")


if __name__ == "__main__":
    main()
