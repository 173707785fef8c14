"""Beam jobs and the command lines that join the rooms."""
