"""Find the words of a video: from its captions, or by speech recognition and forced alignment."""
