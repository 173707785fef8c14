"""Words of a video from its captions, from speech recognition, or from forced alignment."""
