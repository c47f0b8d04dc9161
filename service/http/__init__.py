"""Connections: HTTP/1.1 as uvicorn reads it, within limits of size, number and time."""
