"""The tests. The engine comes first: it turns ONNX Runtime's telemetry off before its import."""

import persona.engine  # noqa: F401  # see above
