"""From sources to the video corpus: manifest, scenes, near copies, split, selection, leakage."""

from safevid_core.corpus.clip_manifest import make_clip_manifest
from safevid_core.corpus.leakage import leaks
from safevid_core.corpus.scene_assignments import make_scene_assignments
from safevid_core.corpus.selection import make_video_corpus, scene_quotas
from safevid_core.corpus.split import make_corpus_split

__all__ = [
    "leaks",
    "make_clip_manifest",
    "make_corpus_split",
    "make_scene_assignments",
    "make_video_corpus",
    "scene_quotas",
]
