"""Executes notebooks, each in a process of its own, and makes pages and the table of claims of what came out."""
