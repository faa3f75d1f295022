"""The lake: every table, partition by partition, committed whole.

Layout below the root::

    tables/<asset>/<partition>/rows-<hash>.parquet, outcomes-<hash>.parquet, manifest.json
    blobs/<kind>/<content hash>/...                 media, checkpoints, features

Data files come first, under names of their own; the manifest comes last and is what readers follow.
A run that is killed leaves the old manifest or the new one.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import polars as pl

from safevid_core.records import OUTCOME_SCHEMA, OUTCOMES, READ_AGAIN, StageRows, Table, content_id

WHOLE = "all"  # the partition of a table that has none


class LakeError(RuntimeError):
    """A lake that cannot be used, or a stage whose rows do not add up."""


class NothingMade(LakeError):
    """A stage that made nothing: no clip can be used, or a model answers nothing; the message says why."""


class NotCurrentError(LakeError):
    """What a lake that only looks says of a partition that is to be made.

    Attributes:
        fingerprint: What the partition would carry. That of the committed one where only unanswered
            questions or unread files are left.
    """

    def __init__(self, asset: str, partition: str, fingerprint: str) -> None:
        super().__init__(f"{asset}[{partition}] is to be made")
        self.asset, self.partition, self.fingerprint = asset, partition, fingerprint


@dataclass(frozen=True)
class Manifest:
    """What one committed partition is, what it was made from, and the seconds its rows took."""

    asset: str
    partition: str
    profile: str
    fingerprint: str
    content_hash: str
    rows: int
    outcomes: dict[str, int]
    files: dict[str, str]
    inputs: dict[str, str]
    info: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    committed_at: float = 0.0


@dataclass(frozen=True)
class StageReport:
    """The result of :func:`run_stage`: the manifest, and whether anything was computed."""

    manifest: Manifest
    computed: bool
    seconds: float


class Lake:
    """Tables and content-addressed directories below one root.

    Args:
        root: The folder that holds everything SafeVid writes.
        profile: Stamped on every row as column `profile`.
        retry_failed: Whether a partition with answers of no use is made again, as
            `models.retry_failed` asks for. Defaults to False.
        only_look: Whether :func:`run_stage` raises :class:`NotCurrentError` in place of making what is not
            current. Defaults to False.

    Raises:
        LakeError: If the root cannot be created or written to.
    """

    def __init__(
        self, root: Path, profile: str, *, retry_failed: bool = False, only_look: bool = False
    ) -> None:
        self.retry_failed = retry_failed
        self.only_look = only_look
        self.root = Path(root).absolute()
        self.profile = profile
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.root):
                pass
        except OSError as error:
            raise LakeError(
                f"output folder {self.root} cannot be written ({error.strerror}); "
                "choose another with SAFEVID_ROOT or change its permissions"
            ) from None

    def folder(self, asset: str, partition: str = WHOLE) -> Path:
        return self.root / "tables" / asset / quote(partition, safe="@")

    def manifest(self, asset: str, partition: str = WHOLE) -> Manifest | None:
        path = self.folder(asset, partition) / "manifest.json"
        try:
            return Manifest(**json.loads(path.read_text()))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError):
            raise LakeError(f"{path} is no manifest; delete it and materialise {asset} again") from None

    def partitions(self, asset: str) -> list[str]:
        """Committed partitions of an asset, sorted."""
        folder = self.root / "tables" / asset
        if not folder.is_dir():
            return []
        return sorted(unquote(path.parent.name) for path in folder.glob("*/manifest.json"))

    def scan(self, table: Table, partitions: Sequence[str] | None = None) -> pl.LazyFrame:
        """The rows of some partitions, or of all committed ones, lazily; empty if there are none."""
        files = self._files(table.name, "rows", partitions)
        if not files:
            return pl.LazyFrame(schema={**table.schema, "profile": pl.String})
        return pl.scan_parquet(files)

    def read(self, table: Table, partition: str | None = None) -> pl.DataFrame:
        """Rows of one partition, or of all, ordered by partition and key."""
        return self.scan(table, None if partition is None else [partition]).collect()

    def outcomes(self, asset: str, partition: str | None = None) -> pl.DataFrame:
        """One row an input id: `input_id, outcome, reason`."""
        files = self._files(asset, "outcomes", None if partition is None else [partition])
        return pl.read_parquet(files) if files else pl.DataFrame(schema=OUTCOME_SCHEMA)

    def _files(self, asset: str, kind: str, partitions: Sequence[str] | None) -> list[Path]:
        found = []
        for partition in self.partitions(asset) if partitions is None else partitions:
            manifest = self.manifest(asset, partition)
            if manifest is not None:
                found.append(self.folder(asset, partition) / manifest.files[kind])
        return found

    def commit(
        self,
        table: Table,
        partition: str,
        stage: StageRows,
        fingerprint: str,
        inputs: Mapping[str, str],
        seconds: float = 0.0,
    ) -> Manifest:
        """Write one partition: data under names of their own, then the manifest that points at them."""
        folder = self.folder(table.name, partition)
        folder.mkdir(parents=True, exist_ok=True)
        manifest = self._write_data(folder, table, partition, stage, fingerprint, inputs, seconds)
        before = self.manifest(table.name, partition)
        write_atomically(folder / "manifest.json", json.dumps(asdict(manifest), indent=1).encode())
        if before is not None:
            for old in set(before.files.values()) - set(manifest.files.values()):
                (folder / old).unlink(missing_ok=True)
        return manifest

    def commit_once(
        self, table: Table, partition: str, stage: StageRows, inputs: Mapping[str, str]
    ) -> Manifest | None:
        """Write a partition that is never written again; None where it is there already.

        Of two processes that try at once one succeeds: the finished folder is moved to its place, which no
        file system does over a folder that holds anything.
        """
        folder = self.folder(table.name, partition)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with self.new_directory(table.name) as scratch:
            manifest = self._write_data(scratch, table, partition, stage, "", inputs, 0.0)
            write_atomically(scratch / "manifest.json", json.dumps(asdict(manifest), indent=1).encode())
            scratch.chmod(0o755)  # mkdtemp's 0700 would hide it from the other users of a server
            for place in (*scratch.iterdir(), scratch):
                _sync(place)
            try:
                scratch.rename(folder)
            except OSError as error:
                if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
                    return None
                raise
        _sync(folder.parent)
        return manifest

    def _write_data(
        self,
        folder: Path,
        table: Table,
        partition: str,
        stage: StageRows,
        fingerprint: str,
        inputs: Mapping[str, str],
        seconds: float,
    ) -> Manifest:
        """Rows and outcomes as files in a folder, and the manifest that is to point at them."""
        rows = stage.rows.select(table.schema.names()).sort(table.key)
        rows = rows.with_columns(pl.lit(self.profile).alias("profile"))
        outcomes = stage.outcome_frame().sort("input_id")
        content_hash = frame_hash(rows.drop(table.volatile, strict=False))
        name = content_id(content_hash, frame_hash(outcomes), time.time_ns(), length=12)
        files = {"rows": f"rows-{name}.parquet", "outcomes": f"outcomes-{name}.parquet"}
        _write_parquet(rows, folder / files["rows"])
        _write_parquet(outcomes, folder / files["outcomes"])
        counts = dict(outcomes.group_by("outcome").len().iter_rows())
        return Manifest(
            asset=table.name,
            partition=partition,
            profile=self.profile,
            fingerprint=fingerprint,
            content_hash=content_hash,
            rows=rows.height,
            outcomes={name: counts.get(name, 0) for name in OUTCOMES},
            files=files,
            inputs=dict(inputs),
            info=stage.info,
            seconds=seconds,
            committed_at=time.time(),
        )

    @contextmanager
    def new_directory(self, kind: str) -> Iterator[Path]:
        """A scratch directory on the lake's own disk, removed afterwards unless :meth:`keep` took it."""
        parent = self.root / "blobs" / kind
        parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".new-", dir=parent))
        try:
            yield scratch
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def keep(self, kind: str, scratch: Path) -> str:
        """Move a finished directory to its content address; returns its path relative to the root."""
        address = Path("blobs") / kind / directory_hash(scratch)
        target = self.root / address
        if not target.exists():
            os.replace(scratch, target)
        return address.as_posix()


def run_stage(
    lake: Lake,
    table: Table,
    partition: str,
    inputs: Mapping[str, str],
    input_ids: Sequence[str] | Callable[[], Sequence[str]],
    compute: Callable[[], StageRows],
    *,
    needs_rows: bool = False,
) -> StageReport:
    """Commit a stage's rows unless the same inputs already gave the partition that is there.

    A partition in which questions went unanswered, because a provider was down, or files unread, because a
    share was, is made again all the same: the ledger has the other answers.

    Args:
        inputs: What the rows depend on, by name: hashes of input rows, settings, model revisions.
        input_ids: The ids that must each have exactly one outcome.
        compute: Called only when something changed.
        needs_rows: Whether a stage without a single row has failed. One that asks models has failed in any
            case if every input failed: its model is dead, or answers nothing that can be used.

    Raises:
        NothingMade: If the stage has failed so. Nothing is committed, and the next run tries again.
        LakeError: If an input id has no outcome or two, an outcome names no input, a key repeats, or a
            row's parent did not end `ok`.
        NotCurrentError: If something changed and the lake only looks.
    """
    started = time.monotonic()
    fingerprint = stage_fingerprint(lake, table, inputs)
    current = lake.manifest(table.name, partition)
    if current is not None and current.fingerprint == fingerprint and not to_be_asked_again(lake, current):
        return StageReport(current, False, time.monotonic() - started)
    if lake.only_look:
        raise NotCurrentError(table.name, partition, fingerprint)
    stage = compute()
    _refuse_nothing(table, partition, stage, needs_rows)
    unread = sum(reason.endswith(READ_AGAIN) for _, _, reason in stage.outcomes)
    stage.info = {**stage.info, **({"unread": unread} if unread else {})}
    check_conservation(table, stage, input_ids() if callable(input_ids) else input_ids)
    seconds = time.monotonic() - started
    manifest = lake.commit(table, partition, stage, fingerprint, inputs, seconds)
    return StageReport(manifest, True, time.monotonic() - started)


def _refuse_nothing(table: Table, partition: str, stage: StageRows, needs_rows: bool) -> None:
    """Fail a stage that made nothing where it should have, with the reasons that its inputs ended with."""
    asks_models = "unanswered" in stage.info  # as models.teacher.spend_info has it
    all_failed = bool(stage.outcomes) and all(outcome == "failed" for _, outcome, _ in stage.outcomes)
    if not (asks_models and all_failed) and not (needs_rows and stage.rows.is_empty()):
        return
    told = Counter(reason for _, _, reason in stage.outcomes).most_common(3)
    reasons = "; ".join(f"{reason} (x{number})" for reason, number in told) or "it was given none"
    where = "" if partition == WHOLE else f" of {partition}"
    raise NothingMade(f"{table.name}: none of {len(stage.outcomes)} inputs{where} gave a row: {reasons}")


def to_be_asked_again(lake: Lake, manifest: Manifest) -> int:
    """Questions and files for which a partition is made again though nothing that it is made from changed."""
    unusable = manifest.info.get("unusable", 0) if lake.retry_failed else 0
    return int(manifest.info.get("unanswered", 0) + manifest.info.get("unread", 0) + unusable)


def stage_fingerprint(lake: Lake, table: Table, inputs: Mapping[str, str]) -> str:
    """What a partition made from these inputs would carry; equal to the committed one: nothing to do."""
    columns = [f"{name}: {kind}" for name, kind in table.schema.items()]
    made_from = sorted(f"{name}={value}" for name, value in inputs.items())
    return content_id(table.version, *columns, lake.profile, *made_from)


def check_conservation(table: Table, stage: StageRows, input_ids: Sequence[str]) -> None:
    """Every input id exactly one outcome; every row a unique key and a parent that ended `ok`."""
    where = f"{table.name}: "
    named = [input_id for input_id, _, _ in stage.outcomes]
    wanted, got = set(input_ids), set(named)
    if len(wanted) != len(input_ids):
        raise LakeError(where + "an input id was handed in twice")
    if len(named) != len(got):
        twice = next(each for each in named if named.count(each) > 1)
        raise LakeError(where + f"input {twice} has two outcomes")
    if wanted - got:
        raise LakeError(where + f"{len(wanted - got)} inputs have no outcome, the first {min(wanted - got)}")
    if got - wanted:
        raise LakeError(where + f"{len(got - wanted)} outcomes name no input, the first {min(got - wanted)}")
    bad = {outcome for _, outcome, _ in stage.outcomes} - set(OUTCOMES)
    if bad:
        raise LakeError(where + f"outcome {bad.pop()!r} is not one of {', '.join(OUTCOMES)}")
    if stage.rows[table.key].n_unique() != stage.rows.height:
        raise LakeError(where + f"column {table.key} repeats")
    if table.parent is None:
        return
    good = {input_id for input_id, outcome, _ in stage.outcomes if outcome == "ok"}
    orphans = set(stage.rows[table.parent].to_list()) - good
    if orphans:
        raise LakeError(
            where + f"{len(orphans)} rows have a parent that did not end ok, the first {min(orphans)}"
        )


def audit_partition(lake: Lake, table: Table, partition: str) -> None:
    """Check a committed partition against its manifest, from the stored files alone.

    Raises:
        LakeError: If it is missing, was changed since, or does not conserve its rows.
    """
    manifest = lake.manifest(table.name, partition)
    if manifest is None:
        raise LakeError(f"{table.name}[{partition}]: not committed; materialise it first")
    rows, outcomes = lake.read(table, partition), lake.outcomes(table.name, partition)
    if frame_hash(rows.drop(table.volatile, strict=False)) != manifest.content_hash:
        raise LakeError(f"{table.name}[{partition}]: rows differ from the manifest's content hash")
    if outcomes.height != sum(manifest.outcomes.values()):
        raise LakeError(f"{table.name}[{partition}]: {outcomes.height} outcomes, the manifest counts others")
    stage = StageRows(rows, [tuple(row) for row in outcomes.iter_rows()])
    check_conservation(table, stage, outcomes["input_id"].unique().to_list())


def frame_hash(frame: pl.DataFrame) -> str:
    """SHA-256 over a frame's columns, types and values, in its own row order."""
    digest = hashlib.sha256(repr(list(frame.schema.items())).encode())
    digest.update(frame.write_ndjson().encode())
    return digest.hexdigest()[:32]


def settings_hash(*groups: Any) -> str:
    """A hash of settings groups (pydantic models or plain values), for a stage's inputs."""
    texts = [
        g.model_dump_json() if hasattr(g, "model_dump_json") else json.dumps(g, sort_keys=True, default=str)
        for g in groups
    ]
    return content_id(*texts)


def directory_hash(folder: Path) -> str:
    """SHA-256 over a directory's relative paths and file bytes."""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:32]


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file that is either absent, old or whole: never half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(handle, 0o644)  # mkstemp's 0600 would hide reports from the other users of a server
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _sync(path: Path) -> None:
    """Bring a file or a folder's names to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write_parquet(frame: pl.DataFrame, path: Path) -> None:
    frame.write_parquet(path, compression="zstd")
