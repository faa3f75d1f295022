"""Inputs of the benchmarks that are generated. Nothing here runs alone."""
