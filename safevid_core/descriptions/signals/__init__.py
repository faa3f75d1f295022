"""Measures clips without a model: flashes, cuts, colours and motion."""
