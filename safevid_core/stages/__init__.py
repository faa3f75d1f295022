"""Stages, their registry, their plans and the gates before them. This package names no particular stage."""
