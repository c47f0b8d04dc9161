"""The network in PyTorch: attention of every kind, dropout, and the user encoder."""
