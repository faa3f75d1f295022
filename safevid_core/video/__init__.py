"""Clip identity, probing, and the one place where video files are opened."""
