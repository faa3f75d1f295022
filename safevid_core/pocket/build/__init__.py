"""Builds the four pocket checkpoints from random weights: `python -m safevid_core.pocket.build OUT`."""
