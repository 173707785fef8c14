"""Run one training on several processes."""
