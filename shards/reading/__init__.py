"""What the reader is made of: where records lie and in which order they come, and a record on its way to arrays.

The door is `shards.reader`. Nothing in here needs TensorFlow.
"""
