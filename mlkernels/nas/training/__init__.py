"""The training of a found network, on all classes of a split."""
