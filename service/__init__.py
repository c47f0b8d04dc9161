"""Serving side: validates histories, pads, masks, batches, and answers from ONNX Runtime."""

import os

# onnxruntime sends telemetry and writes a device id unless this is set before its import.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
