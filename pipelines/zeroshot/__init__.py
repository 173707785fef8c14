"""The benchmarks that the published model answers without having been trained for them, in their official layouts."""
