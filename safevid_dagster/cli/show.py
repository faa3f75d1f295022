"""`safevid show`: rows of a stage, and reasons of inputs without a row, with the names of their files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePath
from typing import TYPE_CHECKING, Annotated, Any

import typer

from safevid_dagster.cli.failures import BadRequest
from safevid_dagster.cli.opening import PartitionNames, Scenes, open_planner, partitions_of
from safevid_dagster.cli.printing import AsJson, print_json, print_record, print_table

if TYPE_CHECKING:
    import polars as pl

    from safevid_core.corpus.names import ClipNames
    from safevid_core.stages.planner import Planner
    from safevid_core.stages.stage import Stage

FIRST_WORDS = 60  # characters of a folded text
_MOST_COLUMNS = 8  # number of columns that are shown of a table without any column of `_SHOWN`
# Texts that may be harmful. Of `FOLDED` columns the first words are shown, of `HIDDEN` columns nothing.
FOLDED = frozenset(
    ("text", "query", "chosen", "reason", "description", "claims", "dropped", "said", "caption", "detail")
)
HIDDEN = frozenset(("rejected", "prompt", "verdicts", "reference", "options"))
# Columns that are shown in a table, in this order. A record shows all columns.
_SHOWN = (
    "scene", "split", "loss", "principle", "subcategory", "style", "expectation", "portion", "capacity",
    "planned", "asked", "no_ground", "weak_query", "judged_out", "kept_out", "released", "shortage",
    "describer", "system",
    "benchmark", "variant", "metric", "measure", "value", "ci_low", "ci_high", "policy", "data_scale", "seed",
    "outcome", "success", "stopped_at", "why", "file_name", "duration_s", "text", "query", "chosen", "reason",
)  # fmt: skip


def show(
    stage: Annotated[str, typer.Argument(help="Name of a stage, as `safevid status` lists it.")],
    scene: Scenes = None,
    partition: PartitionNames = None,
    clip: Annotated[
        str | None,
        typer.Option(help="Only this clip, by its id or the name of its file. Shows all columns."),
    ] = None,
    failed: Annotated[
        bool, typer.Option("--failed", help="Show inputs without a row: failed, undecidable, filtered.")
    ] = False,
    full: Annotated[
        bool, typer.Option("--full", help="Show complete texts, harmful ones included, and all columns.")
    ] = False,
    most: Annotated[int, typer.Option("-n", min=1, help="Greatest number of rows.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Show rows of a stage with the names of their files. Texts that may be harmful are folded."""
    planner = open_planner()
    selected = planner.registry.select([stage], planner.tools.settings, partitions_of(scene, partition))
    shown = planner.registry[stage]
    lake = planner.tools.lake
    names = [name for _, some in selected for name in some if lake.manifest(stage, name) is not None]
    if partition is None and scene is None:
        names = lake.partitions(stage)
    if not names:
        chosen = "".join(f" --scene {each}" for each in scene or ())
        chosen += "".join(f" --partition '{each}'" for each in partition or ())
        raise BadRequest(f"{stage} is not made yet; make it with `safevid run {stage}{chosen} --upstream`")
    view = _View(planner, shown, names, full=full)
    clips = None if clip is None else view.find(clip)
    total, rows = view.inputs_without_rows(clips, most) if failed else view.rows(clips, most)
    reasons = view.inputs_without_rows(clips, most)[1] if clips is not None and not failed else []
    if as_json:
        print_json({"stage": stage, "partitions": names, "total": total, "rows": rows, "reasons": reasons})
        return
    _print(view, rows, as_records=(clip is not None or full) and not failed)
    _print(view, reasons, as_records=False)
    if total > len(rows):
        typer.echo(f"{len(rows)} of {total:,} rows; -n shows more")
    elif not rows and not reasons:
        typer.echo("no rows" if not failed else "every input has a row")


def _print(view: _View, rows: list[dict[str, Any]], *, as_records: bool) -> None:
    if not rows:
        return
    if as_records:
        for number, row in enumerate(rows):
            if number:
                typer.echo()
            print_record(row)
        return
    columns = view.columns(rows[0])
    print_table(columns, [[row[name] for name in columns] for row in rows])


class _View:
    """Reads some partitions of a stage for printing."""

    def __init__(self, planner: Planner, stage: Stage, partitions: list[str], *, full: bool) -> None:
        self._planner = planner
        self._lake = planner.tools.lake
        self._stage = stage
        self._partitions = partitions
        self._full = full

    def find(self, word: str) -> list[str]:
        """The ids of the clips that match a word: an id, or the name of a file.

        Raises:
            BadRequest: If there is no such clip.
        """
        names = self._names(None)
        found = names.find(word)
        if not found:
            unread = self._unread(word)
            if unread:
                raise BadRequest(f"no clip of {word!r}: {unread}")
            near = names.near(word)
            hint = f"did you mean {', '.join(near)}?" if near else "`safevid show clip_manifest` lists them"
            raise BadRequest(f"no clip {word!r}; {hint}")
        return found

    def _unread(self, word: str) -> str:
        """Why a file gave no clip, from the outcomes of the clip manifest. Empty if it has no such file."""
        import polars as pl

        from safevid_core.contracts.tables import CLIP_MANIFEST
        from safevid_core.corpus.sources import BELOW

        if self._lake.manifest(CLIP_MANIFEST.name) is None:
            return ""
        bad = self._lake.outcomes(CLIP_MANIFEST.name).filter(pl.col("outcome") != "ok")
        for source_row, outcome, reason in bad.iter_rows():
            below = source_row.partition(BELOW)[2]
            if word in (below, PurePath(below).name):
                return f"{outcome}, {reason}"
        return ""

    def rows(self, clips: list[str] | None, most: int) -> tuple[int, list[dict[str, Any]]]:
        """The number of rows, and the first rows."""
        import polars as pl

        scan = self._lake.scan(self._stage.table, self._partitions)
        if clips is not None:
            if "clip_id" not in self._stage.table.schema:
                raise BadRequest(f"rows of {self._stage.name} do not belong to clips; leave out --clip")
            scan = scan.filter(pl.col("clip_id").is_in(clips))
        total = int(scan.select(pl.len()).collect().item())
        lists = [name for name, kind in self._stage.table.schema.items() if name == "embedding"]
        frame = scan.head(most).drop(lists, strict=False).collect()
        return total, self._named(frame)

    def inputs_without_rows(self, clips: list[str] | None, most: int) -> tuple[int, list[dict[str, Any]]]:
        """The number of inputs without a row, and the first of them with their reasons, failed ones first."""
        import polars as pl

        outcomes = pl.concat([self._lake.outcomes(self._stage.name, name) for name in self._partitions])
        bad = outcomes.filter(pl.col("outcome") != "ok")
        order = {"failed": 0, "undecidable": 1, "filtered": 2}
        bad = bad.sort(pl.col("outcome").replace_strict(order, default=3), "input_id")
        of_clip = self._clips_of_inputs(bad["input_id"])
        if clips is not None:
            wanted = [each for each in bad["input_id"] if of_clip.get(each, each) in clips]
            bad = bad.filter(pl.col("input_id").is_in(wanted))
        names = self._names(set(of_clip.values()))
        rows = [
            {"input": input_id, "file": names(of_clip.get(input_id)), "outcome": outcome,
             "reason": reason}
            for input_id, outcome, reason in bad.head(most).iter_rows()
        ]  # fmt: skip
        return bad.height, rows

    def columns(self, row: dict[str, Any]) -> list[str]:
        """The columns of a printed table: the key, the file, and the columns of `_SHOWN`."""
        if "input" in row:
            return list(row)
        key = self._stage.table.key
        chosen = [key, *(["file"] if "file" in row and key != "file" else [])]
        shown = [name for name in _SHOWN if name in row and name not in chosen]
        # A table of a stage from the setting `stages` may have no column of `_SHOWN`.
        return [*chosen, *(shown or [name for name in row if name not in chosen][:_MOST_COLUMNS])]

    def _clips_of_inputs(self, inputs: Iterable[str]) -> dict[str, str]:
        """Input -> clip, for inputs that are clips or rows of an upstream table with a clip."""
        import polars as pl

        wanted, parent = list(inputs), self._stage.table.parent
        if parent == "clip_id":
            return {each: each for each in wanted}
        for read in self._stage.reads:
            table = self._planner.registry[read].table
            if table.key == parent and "clip_id" in table.schema:
                found = self._lake.scan(table).filter(pl.col(table.key).is_in(wanted))
                return dict(found.select(table.key, "clip_id").collect().iter_rows())
        return {}

    def _names(self, clips: Iterable[str] | None) -> ClipNames:
        from safevid_core.corpus.names import ClipNames

        return ClipNames(self._lake, clips)

    def _named(self, frame: pl.DataFrame) -> list[dict[str, Any]]:
        rows = frame.to_dicts()
        if "clip_id" in frame.columns:
            names = self._names(frame["clip_id"].drop_nulls())
            rows = [{"file": names(row["clip_id"], row.get("media_sha256")), **row} for row in rows]
        return [{name: self._folded(name, value) for name, value in row.items()} for row in rows]

    def _folded(self, name: str, value: Any) -> Any:
        if self._full or not isinstance(value, str):
            return value
        if name in HIDDEN and value:
            return f"[{len(value)} characters; --full shows them]"
        text = " ".join(value.split())
        return text[:FIRST_WORDS] + "…" if name in FOLDED and len(text) > FIRST_WORDS else value
