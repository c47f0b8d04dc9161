"""Persona's own JSON protocol: `/v1/encode`, `/v1/score` and others."""
