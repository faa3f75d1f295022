"""The jobs, the weekly refresh, and the sensors for changed scenes and dead runs.

The schedule and the sensor `changed_scenes` are stopped until a person starts them.
"""

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

STATE = "safevid/state"  # tag of a requested run: the state of its scene at the time of the request
PARTITION, FIRST, LAST = (
    f"dagster/{name}" for name in ("partition", "asset_partition_range_start", "asset_partition_range_end")
)

refresh_sources = dg.define_asset_job(
    "refresh_sources",
    selection=dg.AssetSelection.assets(
        *(stage.name for stage in registry if stage.group == "corpus" and not stage.partitions.axes)
    ),
    description="Reads every source again. The sensor `changed_scenes` then re-runs the scenes that changed.",
)

# Every stage with one partition for each scene, including stages that are not in the settings' flow.
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
    description="Mondays at 6:00. Start the sensor `changed_scenes` too.",
)


@dg.sensor(
    name="changed_scenes",
    job=refresh_scene,
    default_status=dg.DefaultSensorStatus.STOPPED,
    minimum_interval_seconds=300,
    description="Requests a run for each scene with a table that is not fresh, from clips to pairs, unless a "
    "run is making it. If two runs have not changed the scene's state, the sensor waits for "
    "`automation.retry_minutes`.",
)
def changed_scenes_sensor(context: dg.SensorEvaluationContext, safevid: SafeVid) -> dg.SensorResult:
    instance, settings = context.instance, safevid.settings
    for line in end_dead_runs(instance):
        context.log.info(line)
    if safevid.lake.manifest(CORPUS_SPLIT.name) is None:
        return dg.SensorResult(skip_reason="corpus_split is not made yet; run the job refresh_sources first")
    requests, waiting, current = [], [], 0
    busy = _under_way(instance)
    # An unusable stored answer counts as fresh here. With `models.retry_failed` the sensor would request runs
    # without end.
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
        # Dagster never runs a key twice. The key names the last run, so it is new after each run and the same
        # for two evaluations at once.
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
    description="Marks runs whose process was killed as failed, and frees their slots. Requests no run.",
)
def dead_runs_sensor(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    return dg.SkipReason("; ".join(end_dead_runs(context.instance)) or "no dead run was found")


class ToMake(NamedTuple):
    """The first stage of a scene that a run would make, and the fingerprint that its partition would get."""

    stage: Stage
    scene: str
    fingerprint: str

    def __str__(self) -> str:
        return f"{self.stage.name}[{self.scene}] is to be made"


def first_to_make(planner: Planner, scene: str) -> ToMake | None:
    """The first table of a scene in the settings' flow that a run would make. None if all are fresh.

    A table that cannot be planned counts as one that a run would make, because the run reports the error.
    Example: a checkpoint is missing.
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
    """The last run of the job for a scene. `again`: the run before it was requested for the same state."""

    run_id: str
    status: str
    state: str
    ended: float | None
    again: bool


def _under_way(instance: dg.DagsterInstance) -> dict[str, str]:
    """Scene -> id of a run that makes one of its partitions or is queued to do so."""
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
    """Seconds until a run may be requested for a scene.

    0 if the last two runs were not both requested for the present state, or if the last one changed the lake.
    """
    if last is None or last.state != state or last.ended is None or not last.again:
        return 0.0
    if last.status == dg.DagsterRunStatus.SUCCESS.value:
        made = lake.manifest(found.stage.name, found.scene)
        if made is None or made.committed_at > last.ended:
            return 0.0  # the run made it, and an input changed afterwards
    return max(0.0, last.ended + pause_s - time.time())
