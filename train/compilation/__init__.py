"""Compile training steps, also for devices that are not present, and estimate what the programs cost."""
