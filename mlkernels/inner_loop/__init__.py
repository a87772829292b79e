"""One task in parameter space: the inner loop's settings, its losses, its descent, and where descent ends."""
