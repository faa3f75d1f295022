"""Renders the sources of kind `pocket` before other stages read them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from safevid_core.contracts.outcomes import StageRows, sequence_outcomes
from safevid_core.contracts.tables import POCKET_CLIPS
from safevid_core.pocket.clips import generate_clips
from safevid_core.pocket.outside import write_outside_benchmark
from safevid_core.pocket.sealed import sealed_path
from safevid_core.pocket.world import SCENES
from safevid_core.settings import Settings
from safevid_core.stages.stage import Needs, Plan, Stage, Tools
from safevid_core.storage.lake import settings_hash
from safevid_core.taxonomy.taxonomy import load_scenes


def clips_folder(root: Path) -> Path:
    """The folder of the rendered clips and their public manifest."""
    return root / "pocket" / "clips"


def outside_folder(root: Path) -> Path:
    """The folder of the rendered stand-in for Video-SafetyBench."""
    return root / "pocket" / "video_safetybench"


def _is_rendered_benchmark(settings: Settings) -> bool:
    files = settings.evaluation.files.get("video_safetybench")
    return files is not None and files.path == outside_folder(settings.root)


def render_pocket_sources(settings: Settings, *, swap_twin_pixels: bool = False) -> dict[str, int]:
    """Render the clips of the `pocket` source and the outside benchmark, if the settings name them.

    Files that exist already are not rendered again.

    Args:
        swap_twin_pixels: Exchange the pixels within each twin pair and change nothing else.

    Returns:
        Counts for the asset's metadata: `sources` and `clips`.
    """
    sources = [source for source in settings.corpus.sources if source.kind == "pocket"]
    scenes = rendered_scenes(settings)
    for source in sources:
        generate_clips(
            clips_folder(settings.root),
            sealed_path(settings.root),
            seed=settings.seed,
            scenes=scenes,
            clips_per_scene=source.clips_per_scene,
            twin_groups_per_scene=source.twin_groups_per_scene,
            swap_twin_pixels=swap_twin_pixels,
        )
    if _is_rendered_benchmark(settings):
        write_outside_benchmark(
            outside_folder(settings.root), sealed_path(settings.root, "outside"), settings.seed
        )
    return {"sources": len(sources), "clips": sum(s.clips_per_scene for s in sources) * len(scenes)}


def rendered_scenes(settings: Settings) -> list[str]:
    """The scenes of the settings that the rendered world can show."""
    return [scene for scene in load_scenes(settings).ids if scene in SCENES]


def plan_pocket_clips(tools: Tools, partition: str) -> Plan:
    """Plan to render the clips of all sources of kind `pocket`. Without such a source there is no row."""
    settings = tools.settings
    sources = {
        f"source {place}": source
        for place, source in enumerate(settings.corpus.sources)
        if source.kind == "pocket"
    }
    scenes = rendered_scenes(settings)

    def make(names: Sequence[str]) -> StageRows:
        render_pocket_sources(settings)
        rows = [
            {"source": name, "scenes": len(scenes), "clips": len(scenes) * source.clips_per_scene}
            for name, source in sources.items()
        ]
        return StageRows(POCKET_CLIPS.frame(rows), sequence_outcomes(names, "ok"))

    inputs = {
        "sources": settings_hash(settings.seed, scenes, *sources.values()),
        "rendered": str(all(path.exists() for path in _rendered(settings))),
    }
    return Plan(inputs, list(sources), make, inputs_after_make=lambda: {**inputs, "rendered": str(True)})


def _rendered(settings: Settings) -> list[Path]:
    """The manifest of the clips and the folder of the outside benchmark, if the settings name them."""
    found = []
    if any(source.kind == "pocket" for source in settings.corpus.sources):
        found.append(clips_folder(settings.root) / "manifest.jsonl")
    if _is_rendered_benchmark(settings):
        found.append(outside_folder(settings.root))
    return found


STAGE = Stage(
    POCKET_CLIPS,
    "corpus",
    "Clips rendered for every source of kind `pocket`; nothing where the settings name none.",
    plan_pocket_clips,
    watches=_rendered,
    needs=Needs(("python",)),
)
