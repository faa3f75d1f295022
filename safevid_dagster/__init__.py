"""SafeVid as a Dagster code location: when, for which partition, and what came from what."""
