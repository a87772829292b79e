"""The outer loop: steps, histories, divergence, checkpoints."""
