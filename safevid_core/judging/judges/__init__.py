"""Judges, one file each: a prompt, a parser and a model string, versioned."""
