"""Evaluation: ranking metrics, the baselines, and an encoder as a scorer."""
