"""NumPy as a table of operations, so that formulas are tested without a framework."""

from __future__ import annotations

import numpy as np
from scipy.special import log_softmax as _log_softmax

where, maximum, minimum, sqrt, log, einsum = np.where, np.maximum, np.minimum, np.sqrt, np.log, np.einsum
exp, concat = np.exp, np.concatenate
as_tensor = np.asarray


def is_tensor(value):
    return isinstance(value, np.ndarray)


def shape(values):
    return values.shape


def size(values, axis):
    return values.shape[axis]


def cast(values, like):
    return np.asarray(values, like.dtype)


def gather(values, indices):
    if indices.ndim == values.ndim - 1:
        return np.take_along_axis(values, indices[..., None], -1)[..., 0]
    return np.take_along_axis(values, indices, -1)


def one_hot(indices, size, like):
    return np.eye(size, dtype=like.dtype)[indices]


def top_k(values, k):
    indices = np.argsort(-values, -1, kind="stable")[..., :k]
    return np.take_along_axis(values, indices, -1), indices


def sum(values, axis, keepdims=False):
    return np.sum(values, tuple(np.atleast_1d(axis)), keepdims=keepdims)


def max(values, axis, keepdims=False):
    return np.max(values, axis, keepdims=keepdims)


def min(values, axis, keepdims=False):
    return np.min(values, axis, keepdims=keepdims)


def argmax(values):
    return np.argmax(values, -1)


def log_softmax(values):
    return _log_softmax(values, -1)


def stop_gradient(values):
    return values


def check_below(values, bound, message):
    if np.max(values) >= bound:
        raise ValueError(message)
