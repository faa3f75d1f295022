"""DPO training of a video language model: encoding, collator, vision features, reference, trainer, stage."""
