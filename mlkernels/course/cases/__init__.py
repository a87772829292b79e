"""The cases, expected values and hints of every notebook's exercises: one file a notebook, "01.2" -> `Exercise`."""

from mlkernels.course.cases import nb01, nb02, nb03, nb04, nb05, nb06, nb07, nb08, nb09, nb10

_NOTEBOOKS = (nb01, nb02, nb03, nb04, nb05, nb06, nb07, nb08, nb09, nb10)
EXERCISES = {number: exercise for notebook in _NOTEBOOKS for number, exercise in notebook.EXERCISES.items()}
