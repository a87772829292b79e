"""The search: rounds of scores, a ranking of candidates, a record on the disk."""
