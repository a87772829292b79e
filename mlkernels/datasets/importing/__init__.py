"""From the files that people have to the prepared form: recipes, downloads, checks."""
