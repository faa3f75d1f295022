"""Sources of kind `pocket`: rendered before anything reads them."""

from __future__ import annotations

from pathlib import Path

from safevid_core.pocket.clips import generate_clips
from safevid_core.settings import Settings
from safevid_core.taxonomy.taxonomy import load_scenes


def clips_folder(root: Path) -> Path:
    """Where the rendered clips and their public manifest are."""
    return root / "pocket" / "clips"


def sealed_truth(root: Path) -> Path:
    """What the rendered clips show; only the pocket judge and the tests read it."""
    return root / "pocket" / "sealed" / "truth.json"


def render_pocket_sources(settings: Settings, *, swap_twin_pixels: bool = False) -> dict[str, int]:
    """Render the clips of the `pocket` source, if the settings name one; a second call renders nothing.

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
            sealed_truth(settings.root),
            seed=settings.seed,
            scenes=scenes,
            clips_per_scene=source.clips_per_scene,
            twin_groups_per_scene=source.twin_groups_per_scene,
            swap_twin_pixels=swap_twin_pixels,
        )
    return {"sources": len(sources), "clips": sum(s.clips_per_scene for s in sources) * len(scenes)}
