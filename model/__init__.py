"""Training side: click files, the attention encoder, the training loop, evaluation.

Importing this package does not import PyTorch; `model.attention`, `model.encoder` and
`model.train` do, and need the extra `train`.
"""
