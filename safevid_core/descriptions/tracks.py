"""The tracks from descriptions to pairs: that of a partition, and those that the settings train on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from safevid_core.contracts.tables import Track, lossy
from safevid_core.settings import Settings
from safevid_core.stages.partitions import BY_LOSS_AND_SCENE
from safevid_core.stages.stage import Stage, all_partitions

# Partition -> its track.
TrackOf = Callable[[str], Track]


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
