"""Compute, format and write the metrics of a run."""
