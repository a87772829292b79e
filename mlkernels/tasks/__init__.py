"""Batches of few-shot tasks, and the samplers that make them."""

from mlkernels.tasks.batch import TaskBatch, centred, concatenate
from mlkernels.tasks.image_episodes import episodes
from mlkernels.tasks.populations import NumberedTasks, sinusoid_population
from mlkernels.tasks.synthetic import (
    SinusoidTasks,
    random_labels,
    sinusoid,
    sinusoid_value,
    sinusoid_with_parameters,
    teacher_student,
)
from mlkernels.tasks.teacher_networks import (
    TeacherNetworkTasks,
    batch_normalised,
    teacher_networks,
    teacher_networks_with_parameters,
)

__all__ = [
    "NumberedTasks",
    "SinusoidTasks",
    "TaskBatch",
    "TeacherNetworkTasks",
    "batch_normalised",
    "centred",
    "concatenate",
    "episodes",
    "random_labels",
    "sinusoid",
    "sinusoid_population",
    "sinusoid_value",
    "sinusoid_with_parameters",
    "teacher_networks",
    "teacher_networks_with_parameters",
    "teacher_student",
]
