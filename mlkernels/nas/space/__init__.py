"""What is searched: genotypes, search spaces, layouts, and what a network of cells costs."""
