"""What students plausibly write instead of the answer is told wrong, with the hint that fits."""

from __future__ import annotations

import numpy as np
import pytest

from mlkernels.course.cases import EXERCISES
from mlkernels.course.exercises import check

# exercise -> {what is written: the hint, or a piece of it}
WRONG = {
    "01.1": {  # the eigenvalue of T
        "lambda mu, rate, steps: 1 - (1 - rate * mu) ** steps": "divide by mu",
        "lambda mu, rate, steps: rate * steps * np.ones_like(mu)": "each further step sees the residual",
        "lambda mu, rate, steps: (1 - rate * mu) ** steps / mu": "one step moves the output",
        "lambda mu, rate, steps: (1 - np.exp(-rate * steps * mu)) / mu": "one step moves the output",
    },
    "01.2": {  # the rate of an averaged loss
        "lambda rate, m: rate / m": "compare the two gradients",
        "lambda rate, m: rate * m / 2": "compare the two gradients",
        "lambda rate, m: rate / (2 * m)": "compare the two gradients",
        "lambda rate, m: rate": "compare the two gradients",
    },
    "01.3": {  # the MetaNTK of one task
        "lambda qq, qs, ss, A: qq - 2 * A @ qs.T + A @ ss @ A.T": "both cross terms",
        "lambda qq, qs, ss, A: qq - A @ qs.T - qs @ A.T": "the last term is added",
        "lambda qq, qs, ss, A: qq - A @ qs.T - qs @ A.T - A @ ss @ A.T": "the last term is added",
        "lambda qq, qs, ss, A: qq + A @ qs.T + qs @ A.T + A @ ss @ A.T": "both cross terms",
        "lambda qq, qs, ss, A: qq - A @ ss @ A.T": "the last term is added",
    },
    "01.4": {  # the best contraction
        "lambda kappa: (kappa - 1) / 4": "divided by the smaller",
        "lambda kappa: 1 - 1 / kappa": "put eta into",
        "lambda kappa: 1 / kappa": "all modes alike",
        "lambda kappa: (kappa + 1) / (kappa - 1) if kappa > 1 else 0.0": "put eta into",
        "lambda kappa: ((kappa - 1) / (kappa + 1)) ** 2": "put eta into",
    },
    "02.1": {  # steps to fall by a factor
        "lambda eigenvalue, rate, factor: np.log(factor) / -np.log(1 - rate * eigenvalue)": "divides the loss by four",
        "lambda eigenvalue, rate, factor: np.log(factor) / (2 * rate * eigenvalue)": "divides the loss by four",
        "lambda eigenvalue, rate, factor: np.log(factor) / (2 * np.log(1 - rate * eigenvalue))": "divides the loss by",
        "lambda eigenvalue, rate, factor: factor / (2 * rate * eigenvalue)": "divides the loss by four",
    },
    "02.2": {  # the best rate
        "lambda smallest, largest: np.array([1 / (largest - smallest), 0.5])": "put the rate into",
        "lambda smallest, largest: np.array([1 / largest, 1 - smallest / largest])": "must shrink by the same factor",
        "lambda smallest, largest: np.array([2 / largest, 1 - 2 * smallest / largest])": "must shrink by the same",
        "lambda smallest, largest: np.array([2 / (smallest + largest), ((largest - smallest) / (largest + smallest)) "
        "** 2])": "must shrink by the same factor",
        "lambda smallest, largest: np.array([2 / (1 + largest), (largest - 1) / (largest + 1)])": "twice the eigenv",
    },
    "02.3": {  # centred outputs
        "lambda labels, start: labels - start": "compare the two residuals",
        "lambda labels, start: labels": "compare the two residuals",
        "lambda labels, start: start - labels": "compare the two residuals",
        "lambda labels, start: start": "compare the two residuals",
    },
    "02.4": {  # how loose the bound is
        "lambda: 1": "log(1 - x)",
        "lambda: 2": "log(1 - x)",
        "lambda: 6": "log(1 - x)",
        "lambda: 1 / 3": "log(1 - x)",
    },
    "03.1": {  # the gradient by the start
        "lambda hessian, g, rate, steps: (np.eye(len(g)) - rate * hessian) ** steps @ g": "power of the *matrix*",
        "lambda hessian, g, rate, steps: g - rate * steps * hessian @ g": "dies in one step",
        "lambda hessian, g, rate, steps: (np.eye(len(g)) - rate * hessian) @ g": "dies in one step",
        "lambda hessian, g, rate, steps: np.clip(1 - rate * np.diag(hessian), 0, 1) ** steps * g": "a direction grows",
        "lambda hessian, g, rate, steps: (1 - rate * np.diag(hessian)) ** steps * g": "power of the *matrix*",
    },
    "03.2": {  # the inner minimum
        "lambda x, y, beta: np.linalg.solve(x.T @ x + beta * np.eye(x.shape[1]), x.T @ y)": "before both",
        "lambda x, y, beta: np.linalg.solve(x.T @ x / len(x) + beta * np.eye(x.shape[1]), x.T @ y / len(x))": "set the",
        "lambda x, y, beta: np.linalg.solve(2 / len(x) * x.T @ x + beta * np.eye(x.shape[1]), x.T @ y)": "before both",
        "lambda x, y, beta: np.linalg.lstsq(x, y)[0]": "set the gradient",
        "lambda x, y, beta: np.linalg.solve(2 / len(x) * (x.T @ x + beta * np.eye(x.shape[1])), 2 / len(x) * x.T @ y)":
        "before both",
    },
    "03.3": {  # why 1/N
        "lambda c, smoothness: 1 + c * smoothness": "rises to a limit",
        "lambda c, smoothness: np.inf": "rises to a limit",
        "lambda c, smoothness: np.exp(c)": "the limit is exp",
        "lambda c, smoothness: (1 + c * smoothness / 1000) ** 1000": "rises to a limit",
        "lambda c, smoothness: np.exp(c / smoothness)": "the limit is exp",
    },
    "03.4": {  # linear CKA
        "lambda a, b: np.linalg.norm(a.T @ b) ** 2 / np.linalg.norm(a.T @ a) / np.linalg.norm(b.T @ b)": "centre first",
        "lambda a, b: (lambda a, b: np.linalg.norm(a.T @ b) / np.linalg.norm(a) / np.linalg.norm(b))"
        "(a - a.mean(0), b - b.mean(0))": "centre first",
        "lambda a, b: (lambda a, b: np.linalg.norm(a.T @ b) / np.sqrt(np.linalg.norm(a.T @ a) "
        "* np.linalg.norm(b.T @ b)))(a - a.mean(0), b - b.mean(0))": "square the norm",
        "lambda a, b: (lambda a, b: np.linalg.norm(a.T @ b) ** 2 / np.linalg.norm(a.T @ a) ** 2 "
        "/ np.linalg.norm(b.T @ b) ** 2)(a - a.mean(0), b - b.mean(0))": "centre first",
        "lambda a, b: 1.0": "square the norm",
    },
    "04.1": {  # the size of the space
        "lambda m, k: int(np.prod([(2 + j) * (1 + j) // 2 for j in range(k)]) * m ** (2 * k))": "two edges in each of",
        "lambda m, k: int(np.prod([(2 + j) ** 2 for j in range(k)]) * m ** (2 * k)) ** 2": "nothing to choose",
        "lambda m, k: int(m ** (2 * k)) ** 2": "choose inputs at each node",
        "lambda m, k: int(np.prod([(2 + j) * (1 + j) for j in range(k)]) * m ** (2 * k)) ** 2": "nothing to choose",
        "lambda m, k: 2 * int(np.prod([(2 + j) * (1 + j) // 2 for j in range(k)]) * m ** (2 * k))": "nothing to choose",
    },
    "04.2": {  # an honest condition number
        "lambda values: values.max() / values.min()": "would be the best score",
        "lambda values: values[-1] / values[0]": "largest over smallest",
        "lambda values: np.abs(values).max() / np.abs(values).min()": "would be the best score",
        "lambda values: values.max() / values.min() if values.min() else np.inf": "would be the best score",
        "lambda values: values.max() / values.min() if not values.min() < 0 else np.inf": "has no condition number",
    },
    "04.3": {  # the rank rule
        "lambda condition, regions: int(np.argmax(condition))": "ranks 0, 0, 1",
        "lambda condition, regions: int(np.argmin(condition - regions))": "without 0 kappa falls",
        "lambda condition, regions: int(np.argmin(regions - condition))": "ranks, not sizes",
        "lambda condition, regions: int(np.argmin(np.argsort(np.argsort(-condition)) "
        "+ np.argsort(np.argsort(-regions))))": "ranks 0, 0, 1",
        "lambda condition, regions: int(np.argmin(np.argsort(np.argsort(condition)) "
        "+ np.argsort(np.argsort(regions))))": "ranks 0, 0, 1",
    },
    "04.4": {  # how many networks
        "lambda m, edges, repeats: repeats * sum(edges * left for left in range(2, m + 1))": "and the network itself",
        "lambda m, edges, repeats: repeats * edges * m": "and the network itself",
        "lambda m, edges, repeats: sum(edges * left + 1 for left in range(2, m + 1))": "rounds with 7, 6",
        "lambda m, edges, repeats: repeats * sum(edges * left for left in range(2, m + 1)) + 1": "rounds with 7, 6",
        "lambda m, edges, repeats: repeats * sum(edges * left + 1 for left in range(1, m + 1))": "network itself",
    },
    "05.1": {  # what a mode learns
        "lambda eigenvalue, t, rho: 1 - np.exp(-t * eigenvalue)": "at infinite time",
        "lambda eigenvalue, t, rho: eigenvalue / (eigenvalue + rho) * (1 - np.exp(-t * eigenvalue))": "in the exponent",
        "lambda eigenvalue, t, rho: 1 - np.exp(-t * (eigenvalue + rho))": "at infinite time",
        "lambda eigenvalue, t, rho: (1 - np.exp(-t * (eigenvalue + rho))) / (eigenvalue + rho)": "without a ridge",
        "lambda eigenvalue, t, rho: np.exp(-t * eigenvalue)": "without a ridge",
    },
    "05.2": {  # the largest alpha
        "lambda curvatures: 1 / np.max(curvatures)": "must not be negative",
        "lambda curvatures: 1 / (2 * np.min(curvatures))": "the steepest direction",
        "lambda curvatures: 1 / (2 * np.mean(curvatures))": "the steepest direction",
        "lambda curvatures: 2 / np.max(curvatures)": "must not be negative",
        "lambda curvatures: np.max(curvatures) / 2": "the steepest direction",
    },
    "05.3": {  # the linearised network
        "lambda J, j, f, new, y: new + j @ (J.T @ (y - f))": "H = J J^T",
        "lambda J, j, f, new, y: j @ (J.T @ np.linalg.solve(J @ J.T, y - f))": "the residual is",
        "lambda J, j, f, new, y: new + j @ (J.T @ np.linalg.solve(J @ J.T, y))": "the residual is",
        "lambda J, j, f, new, y: new - j @ (J.T @ np.linalg.solve(J @ J.T, y - f))": "does not move",
        "lambda J, j, f, new, y: f + j @ (J.T @ np.linalg.solve(J @ J.T, y - f))": "it is added to f(x)",
    },
    "05.4": {  # the same time
        "lambda n, k: n": "k times as large",
        "lambda n, k: n * k": "k times as large",
        "lambda n, k: k / n": "n times slower",
        "lambda n, k: n / 2": "n times slower",
        "lambda n, k: 1.0": "n times slower",
    },
    "06.1": {  # leave one out
        "lambda K, gamma, residual: np.linalg.solve(K + gamma * np.eye(len(K)), residual)": "no kernel between",
        "lambda K, gamma, residual: residual - K @ np.linalg.solve(K + gamma * np.eye(len(K)), residual)": "no kernel",
        "lambda K, gamma, residual: np.linalg.solve(K + gamma * np.eye(len(K)), residual) "
        "* np.diag(K + gamma * np.eye(len(K)))": "the first predicts",
        "lambda K, gamma, residual: residual": "the first predicts",
        "lambda K, gamma, residual: np.linalg.solve(K, residual) / np.diag(np.linalg.inv(K))": "the first predicts",
    },
    "06.2": {  # two gradients
        "lambda one, two: 0.5": "the short one counts more",
        "lambda one, two: float(-two @ (one - two) / ((one - two) @ (one - two)))": "w stays within",
        "lambda one, two: float(np.clip(one @ (one - two) / ((one - two) @ (one - two)), 0, 1))": "the short one",
        "lambda one, two: float(np.linalg.norm(one) / (np.linalg.norm(one) + np.linalg.norm(two)))": "the short one",
        "lambda one, two: float(np.linalg.norm(two) / (np.linalg.norm(one) + np.linalg.norm(two)))": "w stays within",
    },
    "06.3": {  # a length scale
        "lambda square, length: square / length**3 * np.exp(-square / (2 * length**2))": "takes one l away",
        "lambda square, length: -square / length**2 * np.exp(-square / (2 * length**2))": "square / l^2",
        "lambda square, length: square / (2 * length**2) * np.exp(-square / (2 * length**2))": "square / l^2",
        "lambda square, length: np.exp(-square / (2 * length**2))": "equal points do not care",
    },
    "06.4": {  # the ridge head
        "lambda x, y, new, gamma: new @ np.linalg.solve(x.T @ x, x.T @ y)": "through the kernel",
        "lambda x, y, new, gamma: new @ np.linalg.solve(x.T @ x / len(x) + gamma * np.eye(x.shape[1]), "
        "x.T @ y / len(x))": "through the kernel",
        "lambda x, y, new, gamma: new @ np.linalg.solve(x.T @ x + gamma**2 * np.eye(x.shape[1]), x.T @ y)": "through",
        "lambda x, y, new, gamma: new @ (x.T @ y) / gamma": "through the kernel",
    },
    "07.1": {  # the cost of a mask
        "lambda mask, f: 3 * f[mask].sum()": "forward 9",
        "lambda mask, f: f.sum() + 2 * f[mask].sum()": "forward 9",
        "lambda mask, f: f.sum() + f[mask].sum()": "two for the first",
        "lambda mask, f: f.sum() + f[mask.argmax() + 1 :].sum() + f[mask].sum()": "no step at all",
    },
    "07.2": {  # the front
        "lambda c, s: s == s.max()": "the second costs more",
        "lambda c, s: np.ones(len(c), bool)": "the second costs more",
        "lambda c, s: ~((c <= c[:, None]) & (s >= s[:, None]) & ~np.eye(len(c), dtype=bool)).any(1)": "equal",
        "lambda c, s: ~((c < c[:, None]) & (s > s[:, None])).any(1)": "as cheap and better",
    },
    "07.3": {  # linear CKA
        "lambda a, b: np.linalg.norm(a.T @ b) ** 2 / np.linalg.norm(a.T @ a) / np.linalg.norm(b.T @ b)": "a shift",
        "lambda a, b: (lambda a, b: np.linalg.norm(a.T @ b) ** 2 / np.linalg.norm(a) ** 2 / np.linalg.norm(b) ** 2)"
        "(a - a.mean(0), b - b.mean(0))": "a scale and a shift",
        "lambda a, b: (lambda a, b: np.linalg.norm(a.T @ b) / np.sqrt(np.linalg.norm(a.T @ a) "
        "* np.linalg.norm(b.T @ b)))(a - a.mean(0), b - b.mean(0))": "one of two directions",
        "lambda a, b: 1.0": "one of two directions",
    },
    "07.4": {  # dCCA
        "lambda a, b: 1 - np.linalg.svd(np.linalg.qr(a - a.mean(0))[0].T @ np.linalg.qr(b - b.mean(0))[0], "
        "compute_uv=False).mean()": "rank one",
        "lambda a, b: np.linalg.svd(np.linalg.qr(a - a.mean(0))[0].T @ np.linalg.qr(b - b.mean(0))[0], "
        "compute_uv=False).max()": "rank one",
        "lambda a, b: 0.0": "odd and even",
        "lambda a, b: float(a.shape[1] != b.shape[1] or not np.allclose(a - a.mean(0), (b - b.mean(0)) / 3))": "is 1",
    },
    "08.1": {  # the factor
        "lambda c: (np.exp(c), int(1 / (2 * np.log1p(c))))": "the logarithm of the second",
        "lambda c: (np.exp(2 * c), int(1 / (2 * c)))": "log(1 + c) is less than c",
        "lambda c: (np.exp(2 * c), int(1 / np.log1p(c)))": "the logarithm of the second",
        "lambda c: (np.exp(2 * c), int(np.ceil(1 / (2 * np.log1p(c)))))": "the logarithm of the second",
        "lambda c: (np.inf, int(1 / (2 * np.log1p(c))))": "the logarithm of the second",
    },
    "08.2": {  # the first bad rate
        "lambda mu, L: 2 / mu": "1 - 2 rate mu",
        "lambda mu, L: 1 / L": "1 - 2 rate mu",
        "lambda mu, L: 2 * mu / L**2": "1 - 2 rate mu",
        "lambda mu, L: 2 / (L + mu)": "1 - 2 rate mu",
    },
    "08.3": {  # a step with memory
        "lambda w, u, c, h, hq, rate, outer, beta: (w - outer * (1 - rate * h) * hq * ((1 - beta) * u + "
        "beta * (w - rate "
        "* h * (w - c)) - c), (1 - beta) * u + beta * (w - rate * h * (w - c)))": "nothing is learned",
        "lambda w, u, c, h, hq, rate, outer, beta: (w - outer * beta * (1 - rate * h) * hq * (u - c), (1 - beta) * u "
        "+ beta * (w - rate * h * (w - c)))": "beta = 1 is MAML",
        "lambda w, u, c, h, hq, rate, outer, beta: (w - outer * beta * hq * ((1 - beta) * u + beta * (w "
        "- rate * h * (w "
        "- c)) - c), (1 - beta) * u + beta * (w - rate * h * (w - c)))": "beta = 1 is MAML",
        "lambda w, u, c, h, hq, rate, outer, beta: (w - outer * beta * (1 - rate * h) * hq * (beta * u "
        "+ (1 - beta) * (w "
        "- rate * h * (w - c)) - c), beta * u + (1 - beta) * (w - rate * h * (w - c)))": "beta = 1 is MAML",
    },
    "08.4": {  # the point of rest
        "lambda optima, mu, v, rate, beta: optima.mean()": "only noise pulls",
        "lambda optima, mu, v, rate, beta: mu @ optima / mu.sum()": "only noise pulls",
        "lambda optima, mu, v, rate, beta: (mu * ((1 - rate * mu) ** 2 + rate**2 * v)) @ optima / (mu * "
        "((1 - rate * mu) "
        "** 2 + rate**2 * v)).sum()": "0.25 and",
        "lambda optima, mu, v, rate, beta: (mu * ((1 - rate * mu) ** 2 + beta * v)) @ optima / (mu * ((1 - rate * mu) "
        "** 2 + beta * v)).sum()": "0.25 and",
    },
    "09.1": {  # the exact hypergradient
        "lambda A, B, b, c, D, x: D.T @ D @ x": "y* = -x / 2",
        "lambda A, B, b, c, D, x: -B.T @ np.linalg.solve(A, np.linalg.solve(A, b - B @ x) - c)": "comes on top",
        "lambda A, B, b, c, D, x: D.T @ D @ x - B.T @ (np.linalg.solve(A, b - B @ x) - c)": "y* = -x / 2",
        "lambda A, B, b, c, D, x: D @ x - B.T @ np.linalg.solve(A, np.linalg.solve(A, b - B @ x) - c)": "B^T, not B",
        "lambda A, B, b, c, D, x: D.T @ D @ x + B.T @ np.linalg.solve(A, np.linalg.solve(A, b - B @ x) - c)": "y* =",
    },
    "09.2": {  # truncation
        "lambda A, B, rate, T: -np.linalg.solve(A, B)": "one step: -rate B",
        "lambda A, B, rate, T: -rate * T * B": "J <- (I",
        "lambda A, B, rate, T: -rate * np.linalg.matrix_power(np.eye(len(A)) - rate * A, T - 1) @ B": "J <- (I",
        "lambda A, B, rate, T: np.linalg.solve(A, (np.eye(len(A)) - "
        "np.linalg.matrix_power(np.eye(len(A)) - rate * A, T)) "
        "@ B)": "one step: -rate B",
    },
    "09.3": {  # the covariance identity
        "lambda value, direct, score: np.mean(direct)": "minus the covariance",
        "lambda value, direct, score: np.mean(direct) - np.mean(value * score)": "the density stays",
        "lambda value, direct, score: np.mean(direct) + np.mean((value - value.mean()) * (score - "
        "score.mean()))": "minus",
        "lambda value, direct, score: np.mean(direct) - np.cov(value, score)[0, 1]": "divides by n",
        "lambda value, direct, score: np.sum(direct) - np.mean((value - value.mean()) * (score - "
        "score.mean()))": "direct",
    },
    "09.4": {  # the step's variance
        "lambda h, step: 1 / h": "v = (1 - e^2 h / 2)^2 v",
        "lambda h, step: step**2 / (1 - (1 - step**2 * h) ** 2)": "that of the Gaussian",
        "lambda h, step: step / (1 - (1 - step**2 * h / 2) ** 2)": "that of the Gaussian",
        "lambda h, step: step**2 / (1 - (1 - step**2 * h / 2))": "that of the Gaussian",
    },
    "09.5": {  # the logarithm's objective
        "lambda l, c, rate, t: np.log(np.sum(l * c**2 * np.abs(1 - rate * l) ** (2 * t)) / 2) / t": "no number",
        "lambda l, c, rate, t: np.log(np.sum(l * c**2 * np.abs(1 - rate * l) ** t) / 2) / t": "halved",
        "lambda l, c, rate, t: np.log(np.sum(l * c**2 * np.abs(1 - rate * l) ** (2 * t)) / 2)": "largest factor",
        "lambda l, c, rate, t: 2 * np.log(np.abs(1 - rate * l).max())": "halved",
    },
    "09.6": {  # descent in closed form
        "lambda X, y, rate, t: np.linalg.pinv(X) @ y": "one step",
        "lambda X, y, rate, t: rate * t * X.T @ y / len(y)": "the gradient at 0 times",
        "lambda X, y, rate, t: rate * X.T @ y": "one step",
        "lambda X, y, rate, t: np.linalg.solve(X.T @ X + 0 * np.eye(X.shape[1]), X.T @ y)": "one step",
    },
    "10.1": {  # the best length
        "lambda X, W, Y, rho, damping: 1 / np.linalg.eigvalsh(X.T @ X + rho**2 * "
        "np.eye(X.shape[1]))[-1]": "5 / (1 + 16)",
        "lambda X, W, Y, rho, damping: ((X.T @ (X @ W - Y)) ** 2).sum() / ((X @ X.T @ (X @ W - Y)) ** "
        "2).sum()": "squared",
        "lambda X, W, Y, rho, damping: 1.0": "5 / (1 + 16)",
        "lambda X, W, Y, rho, damping: (lambda g: (g**2).sum() / (((X @ g) ** 2).sum() + (rho + "
        "damping) * (g**2).sum()))"
        "(X.T @ (X @ W - Y) + rho**2 * W)": "enters squared",
    },
    "10.2": {  # two points
        "lambda a, b, high, low: high * a / (a @ a) + low * b / (b @ b)": "nothing outside",
        "lambda a, b, high, low: high * a + low * b": "nothing outside",
        "lambda a, b, high, low: (high - low) * (a - b) / ((a - b) @ (a - b))": "nothing outside",
        "lambda a, b, high, low: np.linalg.solve(np.eye(len(a)), high * a) + low * (b - a)": "at right angles",
    },
    "10.3": {  # an entropy's gradient
        "lambda s: -np.log(np.exp(s) / np.exp(s).sum()) - 1": "undecided",
        "lambda s: (lambda p: -p * np.log(p))(np.exp(s) / np.exp(s).sum())": "undecided",
        "lambda s: (lambda p: p * (np.log(p) - (p * np.log(p)).sum()))(np.exp(s) / np.exp(s).sum())": "-p_j (log",
        "lambda s: np.zeros_like(s)": "-p_j (log",
    },
    "10.4": {  # a small system
        "lambda X, Y, gamma: X.T @ np.linalg.solve(X @ X.T, Y)": "2 / (4 + 1)",
        "lambda X, Y, gamma: X.T @ np.linalg.solve(X @ X.T + gamma**2 * np.eye(len(X)), Y)": "p x p",
        "lambda X, Y, gamma: X.T @ Y / gamma": "2 / (4 + 1)",
        "lambda X, Y, gamma: np.linalg.solve(X @ X.T + gamma * np.eye(len(X)), Y)": "2 / (4 + 1)",
    },
    "10.5": {  # steps as a ridge
        "lambda s, eta, t: 1 / (eta * t)": "half of the way",
        "lambda s, eta, t: s * (1 - eta * s) ** t": "half of the way",
        "lambda s, eta, t: (1 - eta * s) ** t / (1 - (1 - eta * s) ** t)": "a quarter is left",
        "lambda s, eta, t: s * (1 - eta * s) / (1 - (1 - eta * s))": "a quarter is left",
    },
}  # fmt: skip
ATTEMPTS = [
    pytest.param(number, attempt, hint, id=f"{number}-{i}")
    for number, wrong in WRONG.items()
    for i, (attempt, hint) in enumerate(wrong.items())
]


@pytest.mark.parametrize(("number", "attempt", "hint"), ATTEMPTS)
def test_a_plausible_wrong_answer_is_told_wrong_with_the_hint_that_fits(number, attempt, hint):
    outcome = check(number, eval(attempt, {"np": np}))
    assert outcome.verdict == "wrong", f"{attempt} is told {outcome.verdict}"
    assert hint in outcome.lines[-1], outcome


def test_each_exercise_has_four_wrong_answers():
    assert {number: len(WRONG.get(number, ())) for number in EXERCISES if len(WRONG.get(number, ())) < 4} == {}
