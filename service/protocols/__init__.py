"""The protocols that the service speaks, a folder each: parse, engine call, render, own errors."""
