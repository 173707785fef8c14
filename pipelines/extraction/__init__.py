"""Download and decode one video inside limits of requests, time and memory."""
