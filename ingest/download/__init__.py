"""Download videos of YouTube with yt-dlp."""
