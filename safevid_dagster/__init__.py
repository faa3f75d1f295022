"""The Dagster code location of SafeVid, and the command `safevid`."""
