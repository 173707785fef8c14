"""The published object filter, and reading the PyTorch file of its weights."""
