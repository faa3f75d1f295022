"""Runs stages. No stage depends on this package."""
