"""Scores of networks without training: kernels' condition numbers and linear regions."""
