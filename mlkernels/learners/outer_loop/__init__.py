"""The outer loop: `fit` tells it from top to bottom; histories, divergence, checkpoints."""
