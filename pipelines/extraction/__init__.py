"""Download and decode one video within limits of requests, time and memory."""
