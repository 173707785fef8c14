"""The parts of `shards.reader`: record source, order, masking, batches by threads or worker processes.

No module here imports TensorFlow.
"""
