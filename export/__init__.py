"""Checkpoint to artifact: ONNX graphs, optimised, compared with PyTorch, written whole or not."""
