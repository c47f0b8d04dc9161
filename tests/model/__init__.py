"""Clicks, network, training, evaluation and report."""
