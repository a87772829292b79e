"""Editions of the course for a class: without solutions, with them, and for nbgrader and Otter-Grader."""
