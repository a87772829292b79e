"""Pickles of arrays, read without running what they ask for."""
