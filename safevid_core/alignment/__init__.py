"""Preference optimisation of a video language model: collator, features, reference, trainer, stage."""
