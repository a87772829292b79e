"""Networks of cells in JAX: supernets, trained networks, and the kernels of both."""
