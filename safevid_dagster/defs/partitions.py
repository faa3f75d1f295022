"""The partition sets. The 30 scene categories are one set, shared by every asset marked by scene."""

import dagster as dg

from safevid_core.settings import LOSSES, load_settings
from safevid_core.taxonomy.taxonomy import load_scenes

settings = load_settings()

SCENES = dg.StaticPartitionsDefinition([scene.id for scene in load_scenes().scenes])
LOSSY_SCENES = dg.MultiPartitionsDefinition(
    {"loss": dg.StaticPartitionsDefinition(list(LOSSES)), "scene": SCENES}
)
CHECKPOINTS = dg.MultiPartitionsDefinition(
    {
        "policy": dg.StaticPartitionsDefinition(list(settings.alignment.trained)),
        "data_scale": dg.StaticPartitionsDefinition([f"{s:g}" for s in settings.alignment.data_scales]),
    }
)
# Systems that the demo does not measure stand last, so that a range of the others is theirs alone.
MEASUREMENTS = dg.MultiPartitionsDefinition(
    {
        "benchmark": dg.StaticPartitionsDefinition(list(settings.evaluation.benchmarks)),
        "system": dg.StaticPartitionsDefinition([*settings.systems, *settings.systems_at_other_scales]),
    }
)


def lossy_partition(partition: str) -> tuple[str, str]:
    """The loss and the scene of a lake partition, which is named as the two-dimensional key is."""
    loss, scene = partition.split("|")
    return loss, scene
