"""Images as the search and the training want them: resized, drawn, augmented."""
