"""Withdrawing a clip: what is about it is removed or sealed, and it is refused from then on.

A withdrawal writes its intent, then its tombstones, then acts, then marks itself done. Each act may be done
twice, so a withdrawal that was killed is finished by :func:`finish_all`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from safevid_core.contracts.errors import SafeVidError
from safevid_core.contracts.tables import CLIP_MANIFEST, DECIDED_SIDES, VIDEO_CORPUS, WITHDRAWN
from safevid_core.corpus.withdrawn import read_withdrawn
from safevid_core.datasets import withdrawal_intent as intents
from safevid_core.datasets.clip_files import files_of, media_files, mentioning_files
from safevid_core.datasets.kept_releases import kept_releases
from safevid_core.datasets.links import Links
from safevid_core.datasets.named import UnknownId, find
from safevid_core.datasets.trace import clips_of, trained_on
from safevid_core.datasets.withdrawal_intent import Folder, Part, WithdrawalIntent
from safevid_core.datasets.withdrawal_rows import Found, asked_about, find_rows, shared_keys
from safevid_core.datasets.withdrawal_steps import carry_out
from safevid_core.models.call_records import call_records
from safevid_core.models.ledger import Ledger
from safevid_core.settings import Settings
from safevid_core.stages.stage import Stage, Tools
from safevid_core.storage.holds import hold_file
from safevid_core.video.identity import clip_id_of_file

_OF_CLIP = ("clip_id", "source_id", "media_sha256", "start_s", "end_s")

OnAct = Callable[[str], None]


class NotAClip(SafeVidError, ValueError):
    """An id that names something else than a clip, a source video or a file."""


class ListError(SafeVidError, ValueError):
    """A list of ids that cannot be read."""


def withdraw(
    tools: Tools,
    asked: str,
    reason: str,
    *,
    purge: bool = False,
    unknown: bool = False,
    on_act: OnAct | None = None,
) -> dict[str, Any]:
    """Withdraw a clip, or all clips of a source video or file.

    Args:
        asked: A clip id, the name of a clip's file, a source id or the hash of a file.
        reason: Why, in one line. It is shown wherever the clip is refused.
        purge: Replace releases by successors and destroy the old ones.
        unknown: Whether an id that the lake does not know is written down, to be refused when it comes.
        on_act: Called with the name of each act, before it.

    Returns:
        The report. If the same was withdrawn before, the report of then.

    Raises:
        UnknownId: If nothing has that id, unless `unknown`.
        NotAClip: If it names something else.
    """
    with _held(tools):
        scope, clips = _clips(tools, asked, unknown=unknown)
        name = intents.intent_id(scope, asked if not clips else "", (clip["clip_id"] for clip in clips))
        before = intents.read_intent(tools.lake, name)
        if before is not None and purge and not before.purge:
            intents.write_intent(tools.lake, replace(before, purge=True))
            intents.reopen(tools.lake, name)
        elif before is None:
            _note(on_act, "intent")
            intents.write_intent(tools.lake, _intent(tools, name, asked, scope, reason, clips, purge=purge))
        return _finish(tools, name, on_act)


def finish_all(tools: Tools, on_act: OnAct | None = None) -> list[dict[str, Any]]:
    """Finish the withdrawals that were killed. Returns their reports."""
    with _held(tools):
        open_ = [
            each for each in intents.read_intents(tools.lake) if not intents.read_report(tools.lake, each.id)
        ]
        return [_finish(tools, each.id, on_act) for each in open_]


def not_withdrawn(tools: Tools, ids: Iterable[str]) -> list[str]:
    """Those of some ids that no withdrawal names yet."""
    rows = read_withdrawn(tools.lake).rows
    known_ids = {value for name in ("withdrawn", "clip_id") for value in rows[name].drop_nulls()}
    return [each for each in dict.fromkeys(ids) if each not in known_ids]


def listed_ids(settings: Settings) -> list[str]:
    """The ids of `corpus.withdrawn`, each once.

    Raises:
        ListError: If its file cannot be read.
    """
    listed = settings.corpus.withdrawn
    if not isinstance(listed, Path):
        return list(dict.fromkeys(listed))
    try:
        lines = listed.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no UTF-8 text"
        raise ListError(f"corpus.withdrawn: {listed} cannot be read ({reason}); fix or remove it") from None
    ids = (line.partition("#")[0].strip() for line in lines)
    return list(dict.fromkeys(each for each in ids if each))


def known(tools: Tools, asked: str, *, unknown: bool = False) -> None:
    """Check that an id can be withdrawn.

    Raises:
        UnknownId: If nothing has that id, unless `unknown`.
        NotAClip: If it names something else than a clip, a source video or a file.
    """
    _clips(tools, asked, unknown=unknown)


def _held(tools: Tools) -> Any:
    lock = tools.lake.local_path("locks", "withdrawals.lock")
    return hold_file(lock, "a withdrawal", "`safevid withdraw`")


def _note(on_act: OnAct | None, what: str) -> None:
    if on_act is not None:
        on_act(what)


def _finish(tools: Tools, name: str, on_act: OnAct | None) -> dict[str, Any]:
    report = intents.read_report(tools.lake, name)
    intent = intents.read_intent(tools.lake, name)
    assert intent is not None
    if report is None:
        with closing(Ledger(tools.settings.ledger_url)) as ledger:
            carry_out(tools, ledger, intent, lambda what: _note(on_act, what))
        report = report_of(tools, intent)
        _note(on_act, "done")
        intents.mark_done(tools.lake, intent, report)
    return report


# ------------------------------------------------------------------------------------------------ clips


def _clips(tools: Tools, asked: str, *, unknown: bool) -> tuple[str, list[dict[str, Any]]]:
    """What is withdrawn: `clip` or `source`, and the clips."""
    for intent in intents.read_intents(tools.lake):
        if asked == intent.asked:
            return intent.scope, intent.clips
    known = _known_clips(tools)
    for column, scope in (("clip_id", "clip"), ("source_id", "source"), ("media_sha256", "clip")):
        some = known.filter(pl.col(column) == asked)
        if some.height:
            return scope, [_named_clip(row) for row in some.iter_rows(named=True)]
    links = Links(tools.registry, tools.lake)
    try:
        kind, start = find(links, None, asked)
    except UnknownId:
        if unknown:
            return "clip", []
        raise
    ids = clips_of(start.values())["clip_id"].to_list()
    if kind != "clip":
        about = f" about clip {', '.join(ids[:3])}" if ids else ""
        raise NotAClip(
            f"{asked!r} is a {kind}{about}; `safevid withdraw` takes a clip, a source video or the hash of "
            "a file"
        )
    some = known.filter(pl.col("clip_id").is_in(ids))
    return "clip", [_named_clip(row) for row in some.iter_rows(named=True)]


def _known_clips(tools: Tools) -> pl.DataFrame:
    """Every clip that the lake has seen, with its source and span."""
    empty = pl.DataFrame(schema={name: pl.Float64 if name.endswith("_s") else pl.String for name in _OF_CLIP})
    frames = [
        tools.lake.scan(table).select(_OF_CLIP).collect()
        for table in (CLIP_MANIFEST, VIDEO_CORPUS, DECIDED_SIDES, WITHDRAWN)
    ]
    return (
        pl.concat([empty, *frames])
        .drop_nulls("clip_id")
        .unique("clip_id", keep="first", maintain_order=True)
        .sort("clip_id")
    )


def _named_clip(row: dict[str, Any]) -> dict[str, Any]:
    media = row["media_sha256"]
    return {**row, "whole_file": bool(media) and row["clip_id"] == clip_id_of_file(media)}


# ----------------------------------------------------------------------------------------------- intent


def _intent(
    tools: Tools,
    name: str,
    asked: str,
    scope: str,
    reason: str,
    clips: Sequence[dict[str, Any]],
    *,
    purge: bool,
) -> WithdrawalIntent:
    """Everything that is about the clips, found while it is still there."""
    links = Links(tools.registry, tools.lake)
    date = datetime.now(UTC).isoformat(timespec="seconds")
    intent = WithdrawalIntent(name, asked, scope, " ".join(reason.split()), date, list(clips), purge=purge)
    if not clips:
        return intent
    ids = intent.clip_ids()
    media = _media_of_no_other(tools, clips)
    found = find_rows(links, ids, media)
    asked_keys, notes = asked_about(tools, found)
    with closing(Ledger(tools.settings.ledger_url)) as ledger:
        records = [call for call in call_records(ledger, found.calls | asked_keys) if call.has_text]
    keys = {call.request_key for call in records}
    shared = shared_keys(links, found, keys)
    cost = sum(call.cost_usd for call in records if call.request_key not in shared)
    checkpoints, resting = _resting_on(links, tools.settings, ids)
    files, users = _files(tools, clips, found, media)
    return replace(
        intent,
        rows=found.rows,
        blank=found.blank,
        words=found.words(),
        releases=found.releases,
        folders=_folders(tools, found),
        checkpoints=checkpoints,
        resting=resting,
        calls=sorted(keys - shared),
        cost_usd=cost,
        shared_calls=len(shared),
        files=files,
        users_files=users,
        notes=notes,
    )


def _media_of_no_other(tools: Tools, clips: Sequence[dict[str, Any]]) -> list[str]:
    """The hashes of the clips' files that no other clip of the lake is in."""
    hashes = {clip["media_sha256"] for clip in clips if clip["media_sha256"]}
    mine = {clip["clip_id"] for clip in clips}
    others = _known_clips(tools).filter(~pl.col("clip_id").is_in(list(mine)))
    return sorted(hashes - set(others["media_sha256"].drop_nulls()))


def _folders(tools: Tools, found: Found) -> list[Folder]:
    ids = {name: found.ids[name] for name in ("clip_id", "pair_id", "query_id") if found.ids.get(name)}
    some = [each.with_any(ids) for each in kept_releases(tools.lake)]
    return [Folder(each.address, each.pairs["pair_id"].to_list()) for each in some if each.pairs.height]


def _resting_on(links: Links, settings: Settings, clips: Sequence[str]) -> tuple[list[Folder], list[Part]]:
    """The checkpoints that were trained on the clips, and the partitions that were made with one of them."""
    marked: set[tuple[str, str]] = set()
    folders: dict[str, Folder] = {}
    resting: list[Part] = []
    for stage in links.registry:
        for partition in links.lake.partitions(stage.name):
            if "checkpoint" in stage.table.schema and "policy" in stage.table.schema:
                for name, address in trained_on(links, stage.table, partition, clips):
                    folders[address] = Folder(address, [name])
                    marked.add((stage.name, partition))
            elif marked and _is_made_from(links, settings, stage, partition, marked):
                marked.add((stage.name, partition))
                resting.append(Part(stage.name, partition))
    return list(folders.values()), resting


def _is_made_from(
    links: Links, settings: Settings, stage: Stage, partition: str, marked: set[tuple[str, str]]
) -> bool:
    try:
        inputs = links.registry.inputs(stage, partition, settings)
        return any((upstream.name, part) in marked for upstream, part in inputs)
    except (ValueError, KeyError, SafeVidError):  # a partition whose axis values the settings do not have
        return any(read in {asset for asset, _ in marked} for read in stage.reads)


def _files(
    tools: Tools, clips: Sequence[dict[str, Any]], found: Found, media: Sequence[str]
) -> tuple[list[tuple[str, str]], list[str]]:
    """Files of SafeVid that go, and files of the user that stay."""
    about = pl.DataFrame(
        [{name: clip[name] for name in _OF_CLIP} for clip in clips], infer_schema_length=None
    )
    own, users = [], []
    for file in files_of(tools.lake, about, unnamed=True):
        if not file.own:
            users.append(str(file.path))
        elif file.what != "report":  # all pages go: they show rows without naming the clip
            own.append((file.what, str(file.path)))
    kept = {
        str(path) for path, _ in media_files(tools.lake, set(about["media_sha256"].drop_nulls()) - set(media))
    }
    own = [(what, path) for what, path in own if path not in kept]
    users += [str(path) for path in mentioning_files(tools.settings, tools.lake, found.words())]
    return own, sorted(set(users))


# ----------------------------------------------------------------------------------------------- report


def report_of(tools: Tools, intent: WithdrawalIntent) -> dict[str, Any]:
    """What a withdrawal did, and what it could not undo."""
    rows: dict[str, int] = {}
    for part in intent.rows:
        if part.ids:
            rows[part.asset] = rows.get(part.asset, 0) + len(part.ids)
    kinds: dict[str, int] = {}
    for what, _ in intent.files:
        kinds[what] = kinds.get(what, 0) + 1
    return {
        "withdrawal": intent.id,
        "asked": intent.asked,
        "scope": intent.scope,
        "clips": intent.clip_ids(),
        "reason": intent.reason,
        "date": intent.date,
        "rows_removed": rows,
        "calls_blanked": len(intent.calls),
        "calls_cost_usd": intent.cost_usd,
        "calls_shared": intent.shared_calls,
        "files_removed": kinds,
        "releases": [each.address for each in intent.folders]
        + [f"{each.asset}[{each.partition}]" for each in intent.releases],
        "purged": intents.read_record(tools.lake, intent) if intent.purge else [],
        "checkpoints": [each.address for each in intent.checkpoints],
        "resting_on_them": [f"{each.asset}[{each.partition}]" for each in intent.resting],
        "cannot_be_undone": _cannot_be_undone(intent),
    }


def _cannot_be_undone(intent: WithdrawalIntent) -> list[str]:
    lines = [f"your file {path} is not touched; delete or edit it yourself" for path in intent.users_files]
    for each in intent.folders:
        where = "was destroyed here" if intent.purge else "is sealed; --purge replaces it"
        lines.append(
            f"{each.address} {where}; copies that were given to others keep its {len(each.ids)} pairs"
        )
    if intent.checkpoints:
        names = ", ".join(each.address.rpartition("/")[2] for each in intent.checkpoints)
        lines.append(f"the weights of {len(intent.checkpoints)} checkpoints were trained on it: {names}")
    if intent.shared_calls:
        lines.append(
            f"{intent.shared_calls} model calls keep their texts: rows about other clips rest on the same "
            "questions"
        )
    if intent.clips:
        lines.append(
            "the run logs of Dagster may hold ids, file names and first words; delete the runs in the UI"
        )
    return [*lines, *intent.notes]
