"""Zero-shot benchmarks in their official layouts."""
