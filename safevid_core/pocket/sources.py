"""Sources of kind `pocket`: rendered before anything reads them."""

from __future__ import annotations

from pathlib import Path

from safevid_core.pocket.clips import generate_clips
from safevid_core.pocket.outside import write_outside_benchmark
from safevid_core.pocket.sealed import sealed_path
from safevid_core.settings import Settings
from safevid_core.taxonomy.taxonomy import load_scenes


def clips_folder(root: Path) -> Path:
    """Where the rendered clips and their public manifest are."""
    return root / "pocket" / "clips"


def outside_folder(root: Path) -> Path:
    """Where the rendered edition of Video-SafetyBench is, if the settings read that benchmark from here."""
    return root / "pocket" / "video_safetybench"


def render_pocket_sources(settings: Settings, *, swap_twin_pixels: bool = False) -> dict[str, int]:
    """Render the clips of the `pocket` source and the outside benchmark, where the settings name them.

    A second call renders nothing.

    Args:
        swap_twin_pixels: Exchange the pixels within each twin pair and nothing else.

    Returns:
        Counts for the asset's metadata: `sources` and `clips`.
    """
    sources = [source for source in settings.corpus.sources if source.kind == "pocket"]
    scenes = [scene.id for scene in load_scenes().scenes]
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
    outside = settings.evaluation.files.get("video_safetybench")
    if outside is not None and outside.path == outside_folder(settings.root):
        write_outside_benchmark(outside.path, sealed_path(settings.root, "outside"), settings.seed)
    return {"sources": len(sources), "clips": sum(s.clips_per_scene for s in sources) * len(scenes)}
