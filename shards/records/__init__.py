"""The record formats, one module each: schema both ways, and bytes to arrays."""
