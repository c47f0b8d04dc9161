"""The service: HTTP around the engine, in several worker processes."""
