"""Jobs, the weekly refresh and the sensor that follows it, stopped until someone starts them; dead runs."""

import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import dagster as dg

from safevid_core.contracts.errors import SafeVidError
from safevid_core.contracts.ids import content_id
from safevid_core.contracts.tables import CORPUS_SPLIT
from safevid_core.stages.planner import Planner
from safevid_core.stages.stage import Stage
from safevid_core.storage.lake import Lake
from safevid_dagster.defs.assets import registry
from safevid_dagster.defs.partitions import SCENES
from safevid_dagster.defs.resources import SafeVid
from safevid_dagster.liveness import end_dead_runs

STATE = "safevid/state"  # of a scene, as a tag of the run that was asked for it
PARTITION, FIRST, LAST = (
    f"dagster/{name}" for name in ("partition", "asset_partition_range_start", "asset_partition_range_end")
)

refresh_sources = dg.define_asset_job(
    "refresh_sources",
    selection=dg.AssetSelection.assets(
        *(stage.name for stage in registry if stage.group == "corpus" and not stage.partitions.axes)
    ),
    description="Look at every source again; then `changed_scenes` re-runs the scenes that differ.",
)

# Every stage by scene, whether the settings' flow makes it or not.
BY_SCENE = [stage for stage in registry if stage.partitions.axes == ("scene",)]

refresh_scene = dg.define_asset_job(
    "refresh_scene",
    selection=dg.AssetSelection.assets(*(stage.name for stage in BY_SCENE)),
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
    description="Requests a run for each scene of which any table, from clips to pairs, is not current and "
    "which no run is making. After two runs that left it as it was, it waits for `automation.retry_minutes`.",
)
def changed_scenes_sensor(context: dg.SensorEvaluationContext, safevid: SafeVid) -> dg.SensorResult:
    instance, settings = context.instance, safevid.settings
    for line in end_dead_runs(instance):
        context.log.info(line)
    if safevid.lake.manifest(CORPUS_SPLIT.name) is None:
        return dg.SensorResult(skip_reason="corpus_split is not made yet; run the job refresh_sources first")
    requests, waiting, current = [], [], 0
    busy = _under_way(instance)
    # A stored answer of no use is fresh here, whatever `models.retry_failed` says: else it would be asked for
    # again for ever.
    planner = safevid.planner(retry_failed=False, only_reads=True)
    for scene in SCENES.get_partition_keys():
        if scene in busy:
            waiting.append(f"{scene}: run {busy[scene]} is under way")
            continue
        found = first_to_make(planner, scene)
        if found is None:
            current += 1
            continue
        last = _last(instance, scene)
        state = content_id(found.stage.name, found.fingerprint)
        again_in = _again_in(safevid.lake, last, found, state, 60 * settings.automation.retry_minutes)
        if last is not None and again_in > 0:
            waiting.append(
                f"{scene}: {found}, but two runs left it so, the last of them {last.run_id} ({last.status}); "
                f"asked again in {again_in / 60:.0f} min"
            )
            continue
        # A key is never run twice. Named by the last run, it is new after each, and the same for two
        # evaluations at once.
        key = f"{scene}-{state}-after-{'none' if last is None else last.run_id}"
        requests.append(dg.RunRequest(run_key=key, partition_key=scene, tags={STATE: state}))
    for line in waiting:
        context.log.info(line)
    if requests:
        return dg.SensorResult(run_requests=requests)
    return dg.SensorResult(skip_reason="; ".join([f"{current} scenes are current", *waiting]))


@dg.sensor(
    name="dead_runs",
    job=refresh_scene,
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=30,
    description="Marks runs whose process was killed as failed and frees their slots; requests nothing.",
)
def dead_runs_sensor(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    return dg.SkipReason("; ".join(end_dead_runs(context.instance)) or "every run that is under way lives")


class ToMake(NamedTuple):
    """The first stage of a scene that a run would make; `fingerprint` is what the partition would carry."""

    stage: Stage
    scene: str
    fingerprint: str

    def __str__(self) -> str:
        return f"{self.stage.name}[{self.scene}] is to be made"


def first_to_make(planner: Planner, scene: str) -> ToMake | None:
    """The first table of a scene in the settings' flow that a run would make; None if all are fresh.

    What cannot be planned, such as for a checkpoint that is missing, is for a run to tell.
    """
    for stage, scenes in planner.registry.flow(planner.tools.settings):
        if stage.partitions.axes != ("scene",) or scene not in scenes:
            continue
        try:
            state = planner.state(stage, scene)
        except SafeVidError as error:
            return ToMake(stage, scene, str(error))
        finally:
            planner.forget(stage, scene)
        if state.condition != "fresh":
            return ToMake(stage, scene, state.fingerprint)
    return None


class _Last(NamedTuple):
    """The last run of the job for a scene; `again` where the one before was asked for the same state."""

    run_id: str
    status: str
    state: str
    ended: float | None
    again: bool


def _under_way(instance: dg.DagsterInstance) -> dict[str, str]:
    """Scenes that a queued or started run makes something of, whoever asked for it, with its id."""
    found = {}
    for run in instance.get_runs(dg.RunsFilter(statuses=_NOT_OVER)):
        for scene in _scenes_of(run.tags):
            found[scene] = run.run_id
    return found


_NOT_OVER = [
    status
    for status in dg.DagsterRunStatus
    if status not in (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)
]


def _scenes_of(tags: dict[str, str]) -> Iterator[str]:
    scenes: Sequence[str] = SCENES.get_partition_keys()
    if tags.get(PARTITION) in scenes:
        yield tags[PARTITION]
    if tags.get(FIRST) in scenes and tags.get(LAST) in scenes:
        yield from scenes[scenes.index(tags[FIRST]) : scenes.index(tags[LAST]) + 1]


def _last(instance: dg.DagsterInstance, scene: str) -> _Last | None:
    wanted = dg.RunsFilter(job_name=refresh_scene.name, tags={PARTITION: scene})
    records = instance.get_run_records(wanted, limit=2)
    if not records:
        return None
    run, states = records[0].dagster_run, [record.dagster_run.tags.get(STATE, "") for record in records]
    return _Last(run.run_id, run.status.value, states[0], records[0].end_time, states[:1] == states[1:])


def _again_in(lake: Lake, last: _Last | None, found: ToMake, state: str, pause_s: float) -> float:
    """Seconds until a scene may be asked for again: none where it is not as the last two runs found it."""
    if last is None or last.state != state or last.ended is None or not last.again:
        return 0.0
    if last.status == dg.DagsterRunStatus.SUCCESS.value:
        made = lake.manifest(found.stage.name, found.scene)
        if made is None or made.committed_at > last.ended:
            return 0.0  # it was made, and something else came in between
    return max(0.0, last.ended + pause_s - time.time())
