"""Answer questions about videos: read videos as arrays, answer prompts, embed segments, and serve the local page."""
