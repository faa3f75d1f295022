"""Builds the four pocket checkpoints from nothing: `python -m safevid_core.pocket.build OUT`."""
