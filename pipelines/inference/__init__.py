"""What the commands that ask do: videos as arrays, answers, vectors, and the local page."""
