"""What the course costs, measured: `make bench`. Each file measures one thing against a peer, in one run."""
