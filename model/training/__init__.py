"""Training: recipes, windows and batches, the loss, the loop on Lightning, and the run folder."""
