"""miniImageNet, in each form that it is passed on in.

recipe.py says which form lies at a path and what a whole copy has; classes.py which class is in which split. Each form
has a file that reads it: pickles.py, parquet.py, image_files.py (and the split's CSV files), ilsvrc.py.
"""
