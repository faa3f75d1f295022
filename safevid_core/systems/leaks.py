"""Refuses to measure a checkpoint on clips that it was trained on.

The training clips of a checkpoint are read from the folder of its adapter. If the folder does not list
them, the pairs with outcome `ok` in the record of `dpo_checkpoint` count. If that record has none, all pairs
count.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

import polars as pl

from safevid_core.contracts.tables import (
    BENCHMARK_RESPONSES,
    CORPUS_SPLIT,
    DPO_CHECKPOINT,
    LOSSY_PAIRS,
    PAIRS,
    PAIRS_WITHOUT_DESCRIPTIONS,
    RELEASE,
    SCENE_ASSIGNMENTS,
    benchmark_table,
)
from safevid_core.corpus.leakage import OF_CLIPS, leaks, shares, with_ties
from safevid_core.corpus.trained import pairs_ever_made, read_training_clips
from safevid_core.settings import NEW_RELEASE, Settings
from safevid_core.storage.lake import WHOLE, Lake
from safevid_core.systems.errors import ResponseError

# The tables that leaks are found with, besides the checkpoints and the items: tables that relate clips to
# each other, and the pairs of checkpoints whose folder does not list their training clips.
READ_FOR_LEAKS = (
    CORPUS_SPLIT.name, SCENE_ASSIGNMENTS.name, PAIRS.name, RELEASE.name, PAIRS_WITHOUT_DESCRIPTIONS.name,
    LOSSY_PAIRS.name,
)  # fmt: skip
_OF_CLIP = ("clip_id", "media_sha256", "start_s", "end_s", "twin_group")
_NAMED = 3  # clips that an error message names


class Training:
    """The training clips of the checkpoints of a lake."""

    def __init__(self, lake: Lake) -> None:
        self._lake = lake
        self._read: dict[tuple[str, Path], pl.DataFrame] = {}

    def clips(self, system: str, adapters: Iterable[Path] | None = None) -> pl.DataFrame | None:
        """The training clips of a system, as of :func:`~safevid_core.corpus.leakage.with_ties`.

        None if no training clip is known.

        Args:
            adapters: Folders of the adapters that responded. Defaults to those of the system's checkpoints.
        """
        trained = self._lake.scan(DPO_CHECKPOINT, [system]).select("checkpoint").collect()["checkpoint"]
        current = [self._lake.local_directory(checkpoint) for checkpoint in trained.drop_nulls()]
        found = []
        for folder in dict.fromkeys(current if adapters is None else adapters):
            if (system, folder) not in self._read:
                clips = read_training_clips(folder)
                if clips is None:
                    pairs = self._of_record(system) if folder in current else self._pairs
                    clips = pairs.select(_OF_CLIP).unique()
                self._read[system, folder] = with_ties(self._lake, clips)
            found.append(self._read[system, folder])
        known = [each for each in found if each.height]
        return pl.concat(known).unique() if known else None

    def _of_record(self, system: str) -> pl.DataFrame:
        """The pairs with outcome `ok` in the record of a system's checkpoints. All pairs if it has none."""
        outcomes = self._lake.outcomes(DPO_CHECKPOINT.name, system).filter(outcome="ok")
        pairs = self._pairs.filter(pl.col("pair_id").is_in(outcomes["input_id"].implode()))
        return self._pairs if pairs.is_empty() else pairs

    @cached_property
    def _pairs(self) -> pl.DataFrame:
        return pairs_ever_made(self._lake)


def refuse_trained_on(
    lake: Lake,
    system: str,
    benchmark: str,
    items: pl.DataFrame,
    adapters: Iterable[Path],
    training: Training | None = None,
) -> None:
    """Raise an error if a system was trained on clips that a benchmark asks about.

    Args:
        items: Columns `clip_id, media_sha256, start_s, end_s, twin_group, release`.
        adapters: Folders of the adapters that respond. Empty for a system that is not trained.
        training: Training clips that several calls share. None reads them again.

    Raises:
        ResponseError: If training and benchmark share a clip. The message gives the counts, the first
            clips and what to do.
    """
    folders = list(adapters)
    trained = (training or Training(lake)).clips(system, folders) if folders else None
    if trained is None or items.is_empty():
        return
    of_clips = benchmark in {table.name for table in OF_CLIPS}
    asked = items.select(_OF_CLIP).unique()
    if of_clips:
        asked = with_ties(lake, asked)
    else:  # source ids and twin groups of a published benchmark are not those of this corpus
        asked, trained = (side.select("clip_id", "media_sha256") for side in (asked, trained))
    clips = shares(trained, asked)["clip_id"].unique().sort()
    if clips.is_empty():
        return
    held = items.filter(pl.col("clip_id").is_in(shares(asked, trained)["clip_id"].implode()))
    another = (
        f"set evaluation.releases.{benchmark} to {NEW_RELEASE}" if of_clips else "leave the benchmark out"
    )
    raise ResponseError(
        f"{benchmark}: {held.height} items of release {items['release'][0]} ask about what {system} was "
        f"trained on: {len(clips)} of its clips, first {', '.join(clips[:_NAMED])} (the same clip, a "
        "near-duplicate, a twin or a clip of the same source video); materialise dpo_checkpoint, which "
        f"leaves out such pairs, and benchmark_responses, or {another}"
    )


def refuse_leaking_responses(
    lake: Lake, system: str, benchmark: str, items: pl.DataFrame, training: Training | None = None
) -> None:
    """Raise an error if stored responses come from an adapter that was trained on the benchmark's clips.

    Raises:
        ResponseError: As in :func:`refuse_trained_on`.
    """
    used = lake.scan(BENCHMARK_RESPONSES, [f"{system}|{benchmark}"]).select("settings").unique().collect()
    adapters = {lake.local_directory(adapter) for text in used["settings"] if (adapter := _adapter_of(text))}
    refuse_trained_on(lake, system, benchmark, items, sorted(adapters), training)


def refuse_leaks_of_all(settings: Settings, lake: Lake) -> None:
    """Raise an error if any system that the settings report on was trained on the items of a benchmark.

    Raises:
        ResponseError: As in :func:`refuse_trained_on`, for the first such system.
    """
    training = Training(lake)
    for benchmark in settings.evaluation.benchmarks:
        items = lake.scan(benchmark_table(benchmark), [WHOLE]).select(*_OF_CLIP, "release").collect()
        for system in answering_systems(settings):
            refuse_leaking_responses(lake, system, benchmark, items, training)


def checkpoint_leaks(lake: Lake, clips: pl.DataFrame, systems: Sequence[str] | None = None) -> list[str]:
    """One line for each training clip of a checkpoint that is related to a benchmark clip.

    Args:
        clips: The benchmark's clips, as of :func:`~safevid_core.corpus.leakage.with_ties`.
        systems: The systems whose checkpoints are looked at. Defaults to all in the lake.
    """
    training, found = Training(lake), []
    for system in lake.partitions(DPO_CHECKPOINT.name):
        if systems is None or system in systems:
            trained = training.clips(system)
            lines = [] if trained is None else leaks(trained, clips)
            found += [f"checkpoint {system}: {line}" for line in lines]
    return found


def answering_systems(settings: Settings) -> list[str]:
    """Names of the systems that the settings measure, at any data scale."""
    return list(dict.fromkeys((*settings.systems, *settings.systems_at_other_scales)))


def _adapter_of(text: str | None) -> str | None:
    """The adapter that a response's settings name. None if they name none or are not JSON."""
    try:
        used = json.loads(text or "{}")
    except ValueError:
        return None
    return used.get("adapter") if isinstance(used, dict) else None
