"""Classifiers of an episode's features: logistic regression, nearest centroid, and MetaNTK regression."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import ArrayLike, Float, Int
from threadpoolctl import threadpool_limits

from mlkernels.metantk import adapted_outputs
from mlkernels.nas.evaluation.feature_episodes import Episode, Episodes
from mlkernels.support.typed import typed
from mlkernels.tasks import TaskBatch

METHODS = ("logistic", "centroid", "metantk")
INNER_RIDGE = 0.1  # of the linear kernel, whose diagonal is 1 on normalised features
OUTER_RIDGE = 1.0

Classifier = Callable[[Episode], np.ndarray]


def logistic(episode: Episode) -> np.ndarray:
    """scikit-learn's logistic regression with its defaults (l2, C = 1, lbfgs, multinomial), 1000 iterations at most.

    Source: Tian et al. 2020 (RFS).
    """
    from sklearn.linear_model import LogisticRegression  # takes seconds to import

    fitted = LogisticRegression(C=1.0, max_iter=1000).fit(episode.support, episode.support_labels)
    return fitted.predict(episode.query)


def centroid(episode: Episode) -> np.ndarray:
    """The class whose support has the nearest mean (scikit-learn's divides by zero at one shot).

    Source: Snell et al. 2017.
    """
    return nearest(episode.query, class_means(episode.support, episode.support_labels))


def metantk(train: Episodes, means: np.ndarray) -> Classifier:
    r"""MetaNTK regression with a linear head, meta-trained on episodes of the base classes.

    .. math:: F(X) = A Y' + Z W, \qquad Z = X - A X', \qquad A = X X'^\top (X' X'^\top + \rho I)^{-1}

    A linear head's NTK is the features' inner product, so that the MetaNTK is `Z Z^T` and its function-space solution,
    trained to convergence with an outer ridge r, is linear in Z: with the training tasks' Z and residuals `R = Y - A
    Y'` side by side, `W = (Z^T Z + r I)^{-1} Z^T R`. That is solved in the features' dimension, so that the number of
    training tasks costs little. Labels Y' are the class's mean over the support, and Y is its mean `[classes, d]` over
    all its images that were seen: numbers of classes would say nothing to another task. A query gets the class whose
    label is nearest to F.

    Source: Wang et al. 2022, the analytic MetaNTK; notebooks/01_derive_metantk, whose embedding labels these are.
    """
    with threadpool_limits(1, "blas"):
        adapted = [_adapted(train[number]) for number in range(len(train))]
    Z = np.concatenate([z for _, z, _ in adapted])
    targets = np.concatenate([means[train.classes[number]][train[number].query_labels] for number in range(len(train))])
    R = targets - np.concatenate([labels for labels, _, _ in adapted])
    W = np.linalg.solve(Z.T @ Z + OUTER_RIDGE * np.eye(Z.shape[1]), Z.T @ R)

    def classify(episode: Episode) -> np.ndarray:
        adapted, z, labels = _adapted(episode)
        return nearest(adapted + z @ W, labels)

    return classify


def _adapted(episode: Episode) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`A Y'`, `X - A X'` of the queries, and the classes' labels `[way, d]`."""
    labels = class_means(episode.support, episode.support_labels)
    y = np.concatenate([labels[episode.support_labels], episode.support], axis=1)
    adapted, reached = np.split(np.asarray(_reached(episode.support, y, episode.query)), 2, axis=1)
    return adapted, episode.query - reached, labels


@jax.jit
def _reached(support: Array, y: Array, query: Array) -> Array:
    """`A y`: what the inner loop makes of labels y of the support, trained to convergence."""
    task = TaskBatch(support[None], y[None], query[None], jnp.zeros((1, len(query), y.shape[1])))
    loop = {"inner_rate": 1.0, "inner_steps": math.inf, "flow": True, "ridge": INNER_RIDGE}
    return adapted_outputs(task, lambda a, b: a @ b.T, **loop)[0]


@typed
def class_means(x: Float[ArrayLike, "N d"], labels: Int[ArrayLike, " N"]) -> Float[np.ndarray, "classes d"]:
    """The mean of the rows of each class, `[classes, d]`."""
    one_hot = labels[None] == np.arange(labels.max() + 1)[:, None]
    return one_hot @ x / np.maximum(one_hot.sum(1, keepdims=True), 1)


@typed
def nearest(x: Float[ArrayLike, "N d"], centres: Float[ArrayLike, "classes d"]) -> Int[np.ndarray, " N"]:
    """The nearest of `centres` `[k, d]` to each row of x: int `[n]`."""
    return (x @ centres.T - (centres**2).sum(1) / 2).argmax(1)


def seen_means(train: Episodes, classes: int) -> np.ndarray:
    """Each class's mean over all its queries in some episodes, `[classes, d]`; a class that is in none gets zeros."""
    seen, where = np.unique(train.query.where, return_inverse=True)
    labels = np.zeros(len(seen), int)
    for number, place in enumerate(where.reshape(train.query.where.shape)):
        labels[place] = train.classes[number][:, None]
    found = class_means(train.query.features[seen].astype(np.float64), labels)
    return np.concatenate([found, np.zeros((classes - len(found), found.shape[1]))])
