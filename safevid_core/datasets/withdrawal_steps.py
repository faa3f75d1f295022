"""The acts of a withdrawal, in their order. Each act may be done again after a kill."""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from safevid_core.contracts.ids import content_id
from safevid_core.contracts.outcomes import StageRows
from safevid_core.contracts.tables import BENCHMARK_RELEASES, RELEASE, WITHDRAWN, Table
from safevid_core.datasets.links import stored_table
from safevid_core.datasets.successors import (
    benchmark_successor,
    destroy,
    purge_table_of_release,
    release_successor,
)
from safevid_core.datasets.withdrawal_intent import Part, WithdrawalIntent, read_record, write_record
from safevid_core.datasets.withdrawal_rows import as_stored
from safevid_core.models.ledger import Ledger
from safevid_core.stages.stage import Tools
from safevid_core.storage.file_hashes import file_sha256
from safevid_core.storage.lake import Lake, write_atomically
from safevid_core.storage.removal import blank_values, remove_rows
from safevid_core.storage.seals import Seal, seal_directory, seal_partition

Say = Callable[[str], None]
# Unfinished trainings and reference passes hold pairs that are no more. A new training makes its own.
_OF_PAIRS = ("training", "references")


def carry_out(tools: Tools, ledger: Ledger, intent: WithdrawalIntent, say: Say) -> None:
    """Do everything that the intent names. The tombstones come first, so that nothing is made meanwhile.

    Args:
        say: Called with the name of each act, before it.
    """
    lake = tools.lake
    _write_tombstones(lake, intent, say)
    _seal(lake, intent, say)
    for part in intent.releases:
        if part.asset == BENCHMARK_RELEASES.name:
            say(f"successor of {part.partition}")
            benchmark_successor(lake, part, intent)
    _remove_rows(tools, intent, say)
    say("texts of model calls")
    ledger.blank(intent.calls)
    _remove_files(lake, intent, say)
    if intent.purge:
        _purge(lake, intent, say)


def _write_tombstones(lake: Lake, intent: WithdrawalIntent, say: Say) -> None:
    say("tombstones")
    if lake.manifest(WITHDRAWN.name, intent.id) is not None:
        return
    shared = {
        "withdrawn": intent.asked,
        "scope": intent.scope,
        "reason": intent.reason,
        "withdrawn_at": intent.date,
    }
    rows = [
        {**shared, **clip, "tombstone_id": content_id(intent.id, clip["clip_id"])} for clip in intent.clips
    ] or [{**shared, "tombstone_id": intent.id, "whole_file": False}]
    lake.commit_once(WITHDRAWN, intent.id, StageRows(WITHDRAWN.frame(rows), [(intent.asked, "ok", "")]), {})


def _seal(lake: Lake, intent: WithdrawalIntent, say: Say) -> None:
    def seal(ids: Sequence[str]) -> Seal:
        return Seal(intent.id, intent.day, intent.reason, intent.clip_ids(), list(ids))

    for folder in (*intent.folders, *intent.checkpoints):
        say(f"seal of {folder.address}")
        seal_directory(lake, folder.address, seal(folder.ids))
    for part in (*intent.releases, *intent.resting):
        say(f"seal of {part.asset}[{part.partition}]")
        seal_partition(lake, part.asset, part.partition, seal(part.ids))


def _remove_rows(tools: Tools, intent: WithdrawalIntent, say: Say) -> None:
    lake = tools.lake
    for part in intent.rows:
        table = _table(tools, part)
        if table is not None:
            say(f"rows of {part.asset}[{part.partition}]")
            with lake.hold(part.asset, part.partition, "`safevid withdraw`"):
                remove_rows(lake, table, part.partition, part.ids, part.inputs, intent.outcome_reason)
    for part in intent.blank:
        table = _table(tools, part)
        if table is not None:
            say(f"texts of {part.asset}[{part.partition}]")
            with lake.hold(part.asset, part.partition, "`safevid withdraw`"):
                blank_values(lake, table, part.partition, intent.words)


def _table(tools: Tools, part: Part) -> Table | None:
    """A table with the columns that it is stored with."""
    if part.asset in tools.registry:
        return as_stored(tools.lake, tools.registry[part.asset].table)
    return stored_table(tools.lake, part.asset)


def _remove_files(lake: Lake, intent: WithdrawalIntent, say: Say) -> None:
    for what, name in intent.files:
        path = Path(name)
        say(f"{what} {path.name}")
        if what == "review sheet":
            _blank_sheet(path, intent.words)
        elif what != "media" or _is_the_clip(path, intent):
            path.unlink(missing_ok=True)
    say("media index")
    lake.media.forget(clip["media_sha256"] for clip in intent.clips if clip["whole_file"])
    if intent.rows:
        say("pages and unfinished work")
        for name in ("reports", str(Path("cache") / "parts"), *_OF_PAIRS):
            shutil.rmtree(lake.local_path(name), ignore_errors=True)


def _is_the_clip(path: Path, intent: WithdrawalIntent) -> bool:
    """Whether a file still has the bytes of a withdrawn clip; another one may have taken its place."""
    return path.is_file() and file_sha256(path) in {clip["media_sha256"] for clip in intent.clips}


def _blank_sheet(path: Path, words: Sequence[str]) -> None:
    """Remove the lines of a sheet that name the clip or a row about it. A page is removed as a whole."""
    if not path.is_file():
        return
    if path.suffix != ".csv":
        path.unlink()
        return
    gone = set(words)
    text = path.read_bytes().decode("utf-8-sig")
    rows = list(csv.reader(io.StringIO(text)))
    kept = [row for row in rows if not gone & set(row)]
    if len(kept) < len(rows):
        buffer = io.StringIO()
        csv.writer(buffer).writerows(kept)
        write_atomically(path, ("\ufeff" + buffer.getvalue()).encode())


def _purge(lake: Lake, intent: WithdrawalIntent, say: Say) -> None:
    """Replace every release that holds the clips by a successor, and destroy the old one."""
    record = read_record(lake, intent)
    if not record:
        for folder in intent.folders:
            say(f"successor of {folder.address}")
            successor = release_successor(lake, folder, intent)
            record.append(
                {"address": folder.address, "partition": "", "rows": folder.ids, "successor": successor}
            )
        for part in intent.releases:
            if part.asset == BENCHMARK_RELEASES.name:
                successor = benchmark_successor(lake, part, intent)
                record.append(
                    {"address": "", "partition": part.partition, "rows": part.ids, "successor": successor}
                )
        say("record of what is destroyed")
        write_record(lake, intent, record)
    for part in intent.releases:
        if part.asset == RELEASE.name:
            say(f"rows of {part.asset}[{part.partition}]")
            manifest = lake.manifest(part.asset, part.partition)
            path = "" if manifest is None else manifest.info.get("path", "")
            successors = {each["address"]: each["successor"] for each in record}
            purge_table_of_release(lake, part, successors.get(path, path), intent)
    for each in record:
        say(f"destruction of {each['address'] or each['partition']}")
        destroy(lake, each)
