"""One module a notebook: numbers drawn as a figure, by pure functions of the settings."""
