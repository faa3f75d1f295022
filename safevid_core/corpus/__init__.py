"""Makes the video corpus from the sources: manifest, scenes, near-duplicates, split, selection, leakage."""
