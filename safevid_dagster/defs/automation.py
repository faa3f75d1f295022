"""Jobs, the weekly refresh and the sensor that follows it. All stopped until someone starts them."""

import dagster as dg

from safevid_core.corpus.selection import changed_scenes
from safevid_dagster.defs.partitions import SCENES
from safevid_dagster.defs.resources import SafeVid

refresh_sources = dg.define_asset_job(
    "refresh_sources",
    selection=dg.AssetSelection.assets("pocket_clips", "clip_manifest", "scene_assignments", "corpus_split"),
    description="Look at every source again; then `changed_scenes` re-runs the scenes that differ.",
)

refresh_scene = dg.define_asset_job(
    "refresh_scene",
    selection=dg.AssetSelection.assets("video_corpus").downstream()
    & dg.AssetSelection.groups("corpus", "descriptions", "queries", "preferences")
    - dg.AssetSelection.assets("safevid_350k_release", "description_fidelity_audit")
    - dg.AssetSelection.assets("lossy_descriptions", "lossy_queries", "lossy_pairs"),
    partitions_def=SCENES,
    description="Corpus, descriptions, queries and pairs of one scene.",
)

weekly_refresh = dg.ScheduleDefinition(
    name="weekly_refresh",
    job=refresh_sources,
    cron_schedule="0 6 * * 1",
    default_status=dg.DefaultScheduleStatus.STOPPED,
    description="Mondays at six. Start the sensor `changed_scenes` with it.",
)


@dg.sensor(
    name="changed_scenes",
    job=refresh_scene,
    default_status=dg.DefaultSensorStatus.STOPPED,
    minimum_interval_seconds=300,
    description="Requests one run for each scene whose clips are no longer those of its corpus partition.",
)
def changed_scenes_sensor(context: dg.SensorEvaluationContext, safevid: SafeVid) -> dg.SensorResult:
    requests = [
        dg.RunRequest(run_key=f"{scene}-{fingerprint}", partition_key=scene)
        for scene, fingerprint in changed_scenes(safevid.settings, safevid.lake).items()
    ]
    return dg.SensorResult(run_requests=requests)
