"""Decode the pictures and sounds of records into arrays."""
