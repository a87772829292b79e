"""Drawings that are made once, for notebook 00."""
