"""One raw item becomes segments or a record: plain Python and NumPy, no Beam, no TensorFlow, no JAX."""
