"""Reproducible measurements; `python -m bench` lists them, bench/results.json holds the figures."""

# Before ONNX Runtime is imported: the engine's package turns off its telemetry, which would write
# a device id below the user's home.
import persona.engine  # noqa: F401  # imported for that effect
