"""Seeing a data set: its statistics, the checks of every byte, and pages, pictures and cards that show it to people."""
