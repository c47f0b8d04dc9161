"""Other people's training code, each run in its own environment, on the split that ours gets."""
