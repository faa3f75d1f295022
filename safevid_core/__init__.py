"""SafeVid's method as pure functions: each room makes one artifact from the one before it."""

__version__ = "0.1.0"
