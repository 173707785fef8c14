"""The Beam job that converts question data sets into shards."""
