"""Audits: stages that measure the data. No other stage trains on their tables."""
