"""From the files that people have to the prepared form.

recipe.py says what is known of a dataset; reading.py holds what recipes share. get.py takes the steps: find or fetch a
copy, unpack it (archives.py), check it (expectations.py, same_classes.py), write it (write.py).
"""
