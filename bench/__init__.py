"""Reproducible measurements; `python -m bench` lists them, bench/results.json holds the figures."""
