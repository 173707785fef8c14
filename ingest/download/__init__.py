"""Download YouTube videos with yt-dlp."""
