"""Connections: uvicorn's HTTP/1.1, with limits on size, number and time."""
