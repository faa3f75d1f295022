"""The request and the result of one training run, as JSON files in the folder of the run."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl

from safevid_core.contracts.outcomes import Outcome
from safevid_core.settings import AlignmentSettings, Policy
from safevid_core.storage.frames import DEFAULT_GB, FrameCache
from safevid_core.storage.lake import write_atomically
from safevid_core.storage.media import MediaIndex, MediaMissing

_ORDINARY = Policy.model_validate({})
_SHARED = ("features", "reference", "reference_pairs", "lake")


@dataclass(frozen=True)
class Job:
    """The request to train one seed of one policy at one data scale.

    Attributes:
        folder: Working folder of the run, for checkpoints, progress and the finished adapter.
        pairs: Parquet file of the pairs, already sampled and perturbed, as :func:`with_places` gives them.
        seed: Seed of the initial LoRA weights and of the order of the pairs.
        settings: The alignment settings.
        policy: Objective, perturbation and kind of pairs.
        features: Folder with the vision features of the clips, shared by all runs over one base. None holds
            the features in memory.
        reference: File with the reference of the pairs, shared by all runs over one base. None computes the
            reference for this run alone.
        reference_pairs: Parquet file of the pairs whose reference is written to that file. None means
            `pairs`.
        lake: Root of the lake whose cache of decoded frames is used. None decodes each clip.
        frame_cache_gb: Maximum size of that cache, in gigabytes.
        name: Name of the run in messages. Empty means the name of its folder.
    """

    folder: Path
    pairs: Path
    seed: int
    settings: AlignmentSettings
    policy: Policy = _ORDINARY
    features: Path | None = None
    reference: Path | None = None
    reference_pairs: Path | None = None
    lake: Path | None = None
    frame_cache_gb: float = DEFAULT_GB
    name: str = ""

    @property
    def file(self) -> Path:
        return self.folder / "job.json"

    @property
    def adapter(self) -> Path:
        return self.folder / "adapter"

    @property
    def stored_frames(self) -> FrameCache | None:
        """The cache of decoded frames. None if the run decodes each clip."""
        return None if self.lake is None else FrameCache.below(self.lake, self.frame_cache_gb)

    def write(self) -> None:
        content = {
            "folder": str(self.folder),
            "pairs": str(self.pairs),
            "seed": self.seed,
            "settings": self.settings.model_dump(mode="json"),
            "policy": self.policy.model_dump(mode="json"),
            "name": self.name or self.folder.name,
            "frame_cache_gb": self.frame_cache_gb,
            **{name: str(path) for name in _SHARED if (path := getattr(self, name)) is not None},
        }
        write_atomically(self.file, json.dumps(content, indent=1).encode())

    @classmethod
    def read(cls, file: Path) -> Job:
        content = json.loads(file.read_text())
        settings = AlignmentSettings.model_validate(content["settings"])
        policy = Policy.model_validate(content["policy"])
        shared = {name: Path(content[name]) for name in _SHARED if name in content}
        return cls(
            Path(content["folder"]), Path(content["pairs"]), content["seed"], settings, policy,
            name=content["name"], frame_cache_gb=content["frame_cache_gb"], **shared,
        )  # fmt: skip


def with_places(pairs: pl.DataFrame, media: MediaIndex) -> pl.DataFrame:
    """The pairs with `path`: where each video lies now, and `missing`: why `path` is null."""
    places: dict[str, str] = {}
    missing: dict[str, str] = {}
    hashes = pairs["media_sha256"].drop_nulls().unique().to_list()
    found = media.paths(hashes)
    for sha256 in hashes:
        try:
            places[sha256] = str(found.get(sha256) or media.path(sha256))
        except MediaMissing as error:
            missing[sha256] = error.line
    return pairs.with_columns(
        pl.col("media_sha256").replace_strict(lines, default=None, return_dtype=pl.String).alias(name)
        for name, lines in (("path", places), ("missing", missing))
    )


@dataclass(frozen=True)
class RunResult:
    """The result of a finished training run.

    Attributes:
        pairs: Number of pairs that were trained on.
        steps: Number of optimizer steps.
        first_loss: Loss of the first step.
        last_loss: Mean loss over the last tenth of the steps.
        reward_margin: Mean over the last tenth of the steps.
        reward_accuracy: Mean over the last tenth of the steps, 0 to 1.
        train_s: Duration in seconds.
        refused: Pair id -> outcome and reason.
        warnings: Messages for the user.
        curves: Name -> values in the order of the steps, at most 200. A longer run has means over equal
            numbers of steps. Unlike the adapter's log, the curves include rates and memory.
        cut_answers: Number of responses that were longer than `max_response_tokens`.
    """

    pairs: int
    steps: int
    first_loss: float
    last_loss: float
    reward_margin: float
    reward_accuracy: float
    train_s: float
    refused: dict[str, tuple[Outcome, str]]
    warnings: list[str]
    curves: dict[str, list[float]]
    cut_answers: int = 0

    def write(self, folder: Path) -> None:
        write_atomically(folder / "result.json", json.dumps(asdict(self), indent=1).encode())

    @classmethod
    def read(cls, folder: Path) -> RunResult | None:
        """Return the result in a run's folder. None if the run has not finished."""
        try:
            content: dict[str, Any] = json.loads((folder / "result.json").read_text())
        except FileNotFoundError:
            return None
        content["refused"] = {pair_id: tuple(why) for pair_id, why in content["refused"].items()}
        return cls(**content)
