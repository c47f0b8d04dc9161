"""The engine: histories in, named results out, in this process; no HTTP, JSON or environment."""

import os

# ONNX Runtime sends telemetry and writes a device id unless this is set before its import.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

from persona.engine.engine import Engine
from persona.engine.limits import Limits

__all__ = ["Engine", "Limits"]
