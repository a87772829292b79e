"""Pickles of arrays, read without running what they ask for.

reader.py reads a pickle; allowed.py holds what it may name, and the functions of ours that stand for that; stored.py
holds arrays and strings that stay in the file until they are asked for.
"""
