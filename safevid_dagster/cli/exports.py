"""`safevid export`: pairs, benchmarks and measured runs in the formats of other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from safevid_dagster.cli.failures import BadRequest
from safevid_dagster.cli.opening import FolderBelow, open_existing
from safevid_dagster.cli.printing import AsJson, print_result

NewFolder = Annotated[Path, typer.Option(help="Folder to write. It must be absent or empty.")]
Cut = Annotated[bool, typer.Option("--cut", help="Write each clip as an MP4 file of its own.")]


class Kinds(TyperGroup):
    """The kinds of exports. A format in the place of a kind is answered with the kinds that have it."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and self.get_command(ctx, args[0]) is None:
            raise BadRequest(_which_kind(args[0]))
        return super().resolve_command(ctx, args)


app = typer.Typer(help="Write pairs, a benchmark or measured runs for other tools.", cls=Kinds)


@app.command()
def pairs(
    format: Annotated[
        str,
        typer.Argument(
            help="hugging-face, inspect, llama-factory, llava-next, ms-swift, trl or webdataset.",
            metavar="FORMAT",
        ),
    ],
    to: NewFolder,
    release: Annotated[
        str | None,
        typer.Option(help="Version or id of a release, or the beginning of an id. Defaults to the latest."),
    ] = None,
    frames: Annotated[
        int | None, typer.Option(help="Frames of each clip, for trl and webdataset.", metavar="N")
    ] = None,
    cut: Cut = False,
    validation: Annotated[
        float | None,
        typer.Option(
            help="Share of the source videos whose pairs are for validation. Defaults to the release's own "
            "split, or 0.05 if it has none."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the draw of these source videos.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Write the pairs of a release as a data set to train on."""
    from safevid_core.datasets.exports import export_pairs

    _, lake = open_existing()
    written = export_pairs(
        lake, format, to, release, frames=frames, cut=cut, validation=validation, seed=seed
    )
    counts = ", ".join(f"{split} {count:,}" for split, count in written.pairs.items())
    lines = [f"{written.folder}: release {written.release}, pairs: {counts}"]
    lines += [f"left out {count:,}: {reason}" for reason, count in written.left_out.items()]
    document = {
        "folder": str(written.folder),
        "release": written.release,
        "pairs": dict(written.pairs),
        "left_out": dict(written.left_out),
    }
    print_result(document, lines, as_json=as_json)


@app.command()
def benchmark(
    format: Annotated[str, typer.Argument(help="lmms-eval.", metavar="FORMAT")],
    to: NewFolder,
    name: Annotated[
        str, typer.Option("--benchmark", help="safevidbench_base or safevidbench_challenge.")
    ] = "safevidbench_base",
    cut: Cut = False,
    as_json: AsJson = False,
) -> None:
    """Write SafeVidBench as a task that another tool evaluates models on."""
    from safevid_core.benchmarks.exports import export_benchmark

    _, lake = open_existing()
    written = export_benchmark(lake, format, to, name, cut=cut)
    line = f"{written.folder}: {written.benchmark}, release {written.release}, items: {written.items:,}"
    print_result(vars(written), [line], as_json=as_json)


@app.command()
def runs(
    format: Annotated[
        str,
        typer.Argument(help="inspect: .eval logs of inspect_ai; lmms-eval: JSON lines.", metavar="FORMAT"),
    ],
    to: FolderBelow = Path("runs"),
    system: Annotated[
        list[str] | None, typer.Option(help="Only this system. May be given several times.")
    ] = None,
    benchmark: Annotated[
        list[str] | None, typer.Option(help="Only this benchmark. May be given several times.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write measured runs: every question, response and verdict."""
    from safevid_core.reporting.exports import FORMATS, export_runs

    known = next((each for each in FORMATS if each == format), None)
    if known is None:
        raise BadRequest(f"no format {format!r} for runs; there are: {', '.join(FORMATS)}")
    settings, lake = open_existing()
    paths = [str(path) for path in export_runs(settings, lake, to, system, benchmark, known)]
    print_result({"files": paths}, paths, as_json=as_json)


def _which_kind(word: str) -> str:
    from safevid_core.benchmarks.exports import EXPORTS as OF_BENCHMARKS
    from safevid_core.datasets.exports import EXPORTS as OF_PAIRS
    from safevid_core.reporting.exports import FORMATS as OF_RUNS

    known = {"pairs": OF_PAIRS, "benchmark": OF_BENCHMARKS, "runs": OF_RUNS}
    kinds = [kind for kind, formats in known.items() if word in formats]
    if kinds:
        calls = " or ".join(f"`safevid export {kind} {word}`" for kind in kinds)
        return f"{word} is a format; write {calls}"
    return f"no export {word!r}; there are: {', '.join(known)}"
