"""Opens the lake and the planner of the current settings for a command."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from safevid_core.models.llm import Gateway
    from safevid_core.settings import Settings
    from safevid_core.stages.planner import Planner
    from safevid_core.storage.lake import Lake

Stages = Annotated[list[str] | None, typer.Argument(metavar="[STAGE]...", help="Defaults to the whole flow.")]
Scenes = Annotated[
    list[str] | None, typer.Option("--scene", help="Only this scene. May be given several times.")
]
FolderBelow = Annotated[Path, typer.Option("--to", help="Folder to write below.")]
PartitionNames = Annotated[
    list[str] | None,
    typer.Option(
        "--partition",
        help="Only this partition, such as `pocket@1|xstest`. May be given several times.",
    ),
]


def open_planner(*, only_reads: bool = True) -> Planner:
    """A planner with the current settings.

    Args:
        only_reads: Whether the command only reads.

    Raises:
        SafeVidError: If the settings or the lake cannot be used.
    """
    from safevid_core.pipeline import build_registry
    from safevid_core.settings import load_settings
    from safevid_core.stages.planner import Planner
    from safevid_core.stages.stage import Tools
    from safevid_core.storage.opening import lake_of

    settings = load_settings()

    def open_gateway() -> Gateway:
        from safevid_core.models.llm import Gateway

        return Gateway(settings)

    return Planner(
        Tools(settings, lake_of(settings), build_registry(settings), open_gateway), only_reads=only_reads
    )


def open_existing(root: Path | None = None, file: Path | None = None) -> tuple[Settings, Lake]:
    """Open an existing lake, with settings of its profile.

    Args:
        root: The root of the lake. Defaults to the root of the current settings.
        file: The settings file. Defaults to `SAFEVID_SETTINGS` if that is set.
    """
    from safevid_core.settings import load_settings
    from safevid_core.storage.opening import open_lake

    return open_lake(root or load_settings().root, file)


def partitions_of(scenes: Sequence[str] | None, partitions: Sequence[str] | None) -> list[str] | None:
    """The partitions that `--scene` and `--partition` name together. None if neither is given.

    Raises:
        BadRequest: For a scene that does not exist.
    """
    from safevid_core.settings import load_settings
    from safevid_core.taxonomy.taxonomy import load_scenes
    from safevid_dagster.cli.failures import BadRequest

    known = load_scenes(load_settings()).ids
    for scene in scenes or ():
        if scene not in known:
            import difflib

            near = difflib.get_close_matches(scene, known, n=3, cutoff=0.5)
            hint = f"did you mean {', '.join(near)}?" if near else f"there are: {', '.join(known)}"
            raise BadRequest(f"no scene {scene!r}; {hint}")
    return [*(scenes or ()), *(partitions or ())] or None
