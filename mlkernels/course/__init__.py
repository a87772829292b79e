"""What notebooks use: presets, claims, exercises, plots, widgets, demos."""
