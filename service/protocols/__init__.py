"""The protocols of the service, one folder each: parse, engine call, render, own errors."""
