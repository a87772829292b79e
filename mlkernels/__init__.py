"""Few-shot meta-learning theory, taught in notebooks. This package is the thin helper behind them."""

__version__ = "0.1.0"
