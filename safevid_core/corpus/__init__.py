"""From sources to the video corpus: manifest, scenes, near-duplicates, split, selection, leakage."""
