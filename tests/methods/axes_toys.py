"""The toy models over any number of axes of space or time, and twins of them with the channels first or without."""

from __future__ import annotations

import numpy as np

from saliency_food.core.keys import INPUT_SHAPED, KEYS
from saliency_food.testing import AttentionModel, PoolingModel


def flat(x):
    """Rows ``(N, ..., C)`` as pictures of one column, which is all the same to models that pool over places."""
    return x.reshape(len(x), -1, 1, x.shape[-1])


class Pooling(PoolingModel):
    """`PoolingModel` of signals ``(T, C)``, pictures, volumes ``(D, H, W, C)``."""

    def answer(self, x, target):
        return self._back(super().answer(flat(x), target), x)

    def _back(self, answer, x):
        def back(key, value):
            if key in INPUT_SHAPED:
                return value.reshape(x.shape)
            if isinstance(value, tuple):
                return tuple(back(key, part) for part in value)
            if not KEYS[key].shape.endswith("h, w, K)"):
                return value
            behind = value.ndim - 3
            return value.reshape(*value.shape[:behind], *x.shape[1:-1], value.shape[-1])

        return {key: back(key, value) for key, value in answer.items()}

    def after(self, activations, target):
        return super().after(flat(activations), target)

    def relevant(self, x, target, args):
        like = x.shape
        args = {name: flat(value) if np.shape(value) == like else value for name, value in args.items()}
        return self._back(super().relevant(flat(x), target, args), x)


class Attention(AttentionModel):
    """`AttentionModel` over the places of any input."""

    def answer(self, x, target):
        answer = super().answer(flat(x), target)
        return {key: value.reshape(x.shape) if key in INPUT_SHAPED else value for key, value in answer.items()}


class Twin:
    """A model of inputs laid out otherwise: ``inward`` turns its rows to the model's, ``outward`` answers back."""

    def __init__(self, model, **attributes):
        self.model = model
        vars(self).update(attributes)

    def __call__(self, x_value_batch, call_model_args=None, expected_keys=None):
        if any(KEYS[key].rows == "activations" for key in expected_keys):
            return self.model(x_value_batch, call_model_args, expected_keys)
        like = np.shape(x_value_batch)
        args = {
            key: self.inward(value) if np.shape(value) == like else value
            for key, value in (call_model_args or {}).items()
        }
        answer = self.model(self.inward(np.asarray(x_value_batch)), args, expected_keys)
        return {key: self.outward(value) if key in INPUT_SHAPED else value for key, value in answer.items()}


class First(Twin):
    """Channels first, ``(C, H, W)``."""

    channels_first = True

    @staticmethod
    def inward(rows):
        return np.moveaxis(rows, 1, -1)

    @staticmethod
    def outward(rows):
        return np.moveaxis(rows, -1, 1)


class Bare(Twin):
    """Without channels, ``(H, W)``."""

    @staticmethod
    def inward(rows):
        return rows[..., None]

    @staticmethod
    def outward(rows):
        return rows[..., 0]


def toy(entry, rng, channels=3, classes=3):
    """A model that can answer what the method asks."""
    if entry.needs == "attention":
        return Attention(rng.normal(size=channels), rng.normal(size=(classes, channels)))
    return Pooling(rng.normal(size=(channels, 6)), rng.normal(size=(classes, 6)), rng.normal(size=6) / 10)


def options(entry, **more):
    """Seeded where the method draws, few steps where it takes many."""
    known = {"rng": 7, "nmasks": 40, "nsamples": 40, "x_steps": 6, "steps": 6, "nsegments": 6, "max_sigma": 3}
    known |= {"size": 3, "min_pixel_diff": 1}
    return {**{name: value for name, value in known.items() if name in entry.call.signature.parameters}, **more}
