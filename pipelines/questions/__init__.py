"""The Beam job that turns question data sets into shards."""
