"""Batches of few-shot tasks, and the samplers that make them."""

from mlkernels.tasks.batch import TaskBatch, centred, concatenate
from mlkernels.tasks.image_episodes import episodes
from mlkernels.tasks.synthetic import (
    SinusoidTasks,
    random_labels,
    sinusoid,
    sinusoid_value,
    sinusoid_with_parameters,
    teacher_student,
)

__all__ = [
    "SinusoidTasks",
    "TaskBatch",
    "centred",
    "concatenate",
    "episodes",
    "random_labels",
    "sinusoid",
    "sinusoid_value",
    "sinusoid_with_parameters",
    "teacher_student",
]
