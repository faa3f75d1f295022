"""The tracks from descriptions to pairs: that of a partition, and those that the settings train on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from safevid_core.contracts.tables import AS_DESCRIBED, WITHOUT_DESCRIPTIONS, Table, Track, lossy
from safevid_core.settings import Settings
from safevid_core.stages.partitions import BY_LOSS_AND_SCENE, BY_SCENE
from safevid_core.stages.stage import (
    ExpectedRows,
    Forecast,
    Group,
    Plan,
    Stage,
    Tools,
    all_partitions,
)

# Partition -> its track.
TrackOf = Callable[[str], Track]
Forecaster = Callable[[Tools, str, ExpectedRows], Forecast]


def track_of_partition(track: Track) -> TrackOf:
    """The same track for every partition."""
    return lambda partition: track


def track_of_loss(partition: str) -> Track:
    """The track of `<loss>|<scene>`."""
    return lossy(BY_LOSS_AND_SCENE.values(partition)["loss"])


def trained_losses(stage: Stage, settings: Settings) -> list[str]:
    """The partitions of those losses that a policy of the settings is trained on."""
    return [
        partition
        for partition in stage.partitions.names(settings)
        if stage.partitions.values(partition)["loss"] in settings.alignment.pair_sets
    ]


def if_trained_on(pairs: str) -> Callable[[Stage, Settings], Sequence[str]]:
    """All partitions if a policy of the settings is trained on these pairs, else none."""

    def wanted(stage: Stage, settings: Settings) -> Sequence[str]:
        return all_partitions(stage, settings) if pairs in settings.alignment.pair_sets else ()

    return wanted


def stages_of_tracks(
    table_of: Callable[[Track], Table],
    group: Group,
    descriptions: tuple[str, str, str],
    plan: Callable[[TrackOf, Tools, str], Plan],
    reads: Callable[[Track], tuple[str, ...]],
    forecast: Callable[[Track], Forecaster],
    **more: Any,
) -> tuple[Stage, Stage, Stage]:
    """A stage on each track: as described, without descriptions, and with lossy descriptions.

    Args:
        table_of: Gives the table of a track.
        descriptions: One sentence for people about each stage.
        plan: Plans a partition, given how to find its track.
        reads: Gives the names of the stages that are read on a track.
        forecast: Gives the forecast of a track.
        more: Further arguments of each stage.
    """

    def stage(text: str, track_of: TrackOf, **when: Any) -> Stage:
        track = track_of(BY_LOSS_AND_SCENE.separator)
        return Stage(
            table_of(track),
            group,
            text,
            partial(plan, track_of),
            reads=reads(track),
            forecast=forecast(track),
            **when,
            **more,
        )

    described, undescribed, lost = descriptions
    return (
        stage(described, track_of_partition(AS_DESCRIBED), partitions=BY_SCENE),
        stage(
            undescribed,
            track_of_partition(WITHOUT_DESCRIPTIONS),
            partitions=BY_SCENE,
            wanted=if_trained_on("without_descriptions"),
        ),
        stage(lost, track_of_loss, partitions=BY_LOSS_AND_SCENE, wanted=trained_losses),
    )
