"""Judges, one file each, with a prompt, a parser and a version."""
