"""The engine, in process."""
