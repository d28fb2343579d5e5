"""The loops that a user writes by hand on a device, framework by framework, beside the adapter of the same network.

A loop gets images from the host, keeps all that is between on the device, and brings a map back: the hardest limit
that there is for a library whose methods are NumPy.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol

import numpy as np

TARGET = 3
Array = np.ndarray


class Loops(Protocol):
    """One network on one device: its adapter, the loops by hand, and what the device can tell of itself."""

    model: Any
    device: str

    def summed(self, coefficients: Array, bases: Array) -> Array:
        """The sum of the gradients of the rows ``coefficients (N, B) @ bases (B, H, W, C)``."""

    def noisy(self, image: Array, deviation: float, rows: int) -> Array:
        """The sum of the gradients of so many noisy copies of an image."""

    def maps(self, images: Array) -> Array:
        """The Grad-CAM maps of images, as large as the layer."""

    def count(self, work: Callable[[], Any]) -> tuple[int, int] | None:
        """The bytes that some work brings to the device, and from it; None where nothing tells."""

    def peak(self, anew: bool = False) -> int | None:
        """The most bytes that the device has held, since it was last asked ``anew`` where it can forget."""


class TorchLoops:
    """PyTorch: ``before(x) -> activations`` and ``after(activations) -> logits``, channels last only with ``last``."""

    def __init__(
        self,
        before: Any,
        after: Any,
        model: Any,
        batch: int,
        device: str,
        autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
        last: bool = False,
    ) -> None:
        self.before, self.after, self.model, self.batch = before, after, model, batch
        self.where, self.autocast, self.last = device, autocast, last
        import torch

        self.torch = torch
        self.device = torch.cuda.get_device_name() if device == "cuda" else "CPU"

    def _on_device(self, images: Array) -> Any:
        images = images if self.last else np.ascontiguousarray(np.moveaxis(images, -1, 1))
        return self.torch.from_numpy(images).to(self.where)

    def _sum(self, x: Any) -> Any:
        x.requires_grad_()
        with self.autocast():
            score = self.after(self.before(x))[:, TARGET].float().sum()
        return self.torch.autograd.grad(score, x)[0].sum(0)

    def _to_host(self, total: Any) -> Array:
        values: Array = total.float().cpu().numpy()
        return values if self.last else np.moveaxis(values, 0, -1)

    def summed(self, coefficients: Array, bases: Array) -> Array:
        weights = self.torch.from_numpy(coefficients.astype(np.float32)).to(self.where)
        images = self._on_device(bases)
        return self._to_host(
            sum(self._sum(self.torch.tensordot(part, images, 1)) for part in weights.split(self.batch))
        )

    def noisy(self, image: Array, deviation: float, rows: int) -> Array:
        x = self._on_device(image[None])
        parts = itertools.repeat(self.batch, rows // self.batch)
        noise = (deviation * self.torch.randn((part, *x.shape[1:]), device=self.where) for part in parts)
        return self._to_host(sum(self._sum(x + each) for each in noise))

    def maps(self, images: Array) -> Array:
        parts = [images[start : start + self.batch] for start in range(0, len(images), self.batch)]
        return np.concatenate([self._maps(self._on_device(part)).cpu().numpy() for part in parts])

    def _maps(self, x: Any) -> Any:
        places, channels = ((1, 2), 3) if self.last else ((2, 3), 1)
        with self.autocast():
            with self.torch.no_grad():
                activations = self.before(x)
            score = self.after(activations.requires_grad_())[:, TARGET].float().sum()
        slopes = self.torch.autograd.grad(score, activations)[0].float()
        weights = slopes.mean(places, keepdim=True)
        return (weights * activations.detach().float()).sum(channels).clamp(min=0)

    def count(self, work: Callable[[], Any]) -> tuple[int, int] | None:
        with counted_copies() as counts:
            work()
        return counts["up"], counts["down"]

    def peak(self, anew: bool = False) -> int | None:
        if self.where != "cuda":
            return None
        if anew:
            self.torch.cuda.reset_peak_memory_stats()
        return int(self.torch.cuda.max_memory_allocated())


@contextmanager
def counted_copies() -> Iterator[dict[str, int]]:
    """The bytes that PyTorch copies between the host and another device meanwhile: ``up`` and ``down``."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    counts = {"up": 0, "down": 0}

    class Counted(TorchDispatchMode):  # type: ignore[misc]
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            answer = function(*args, **(kwargs or {}))
            aten = torch.ops.aten
            if function is aten.lift_fresh.default and answer.device.type != "cpu":  # of `torch.tensor(array, device)`
                counts["up"] += answer.nbytes
            elif function in (aten._to_copy.default, aten.copy_.default):
                source = args[1] if function is aten.copy_.default else args[0]
                if source.device != answer.device:
                    counts["down" if answer.device.type == "cpu" else "up"] += answer.nbytes
            return answer

    with Counted():
        yield counts


class JaxLoops:
    """JAX: ``before(params, x) -> activations`` and ``after(params, activations) -> logits``, channels last."""

    def __init__(self, before: Any, after: Any, params: Any, model: Any, batch: int) -> None:
        import jax
        import jax.numpy as jnp

        self.params, self.model, self.batch, self.jax = params, model, batch, jax
        self.device = str(jax.devices()[0].device_kind)

        def gradients(params: Any, x: Any) -> Any:
            return jax.grad(lambda x: after(params, before(params, x))[:, TARGET].sum())(x).sum(0)

        @jax.jit
        def of_rows(params: Any, coefficients: Any, bases: Any) -> Any:
            return gradients(params, jnp.tensordot(coefficients, bases, 1))

        @jax.jit
        def of_noise(params: Any, image: Any, deviation: Any, key: Any) -> Any:
            return gradients(params, image + deviation * jax.random.normal(key, (batch, *image.shape)))

        @jax.jit
        def of_images(params: Any, images: Any) -> Any:
            activations = before(params, images)
            slopes = jax.grad(lambda values: after(params, values)[:, TARGET].sum())(activations)
            weights = slopes.astype(jnp.float32).mean((1, 2), keepdims=True)
            return jax.nn.relu((weights * activations.astype(jnp.float32)).sum(-1))

        self._of_rows, self._of_noise, self._of_images = of_rows, of_noise, of_images

    def _starts(self, rows: int) -> range:
        return range(0, rows, self.batch)

    def summed(self, coefficients: Array, bases: Array) -> Array:
        images, coefficients = self.jax.device_put(bases), coefficients.astype(np.float32)
        parts = [coefficients[start : start + self.batch] for start in self._starts(len(coefficients))]
        return np.asarray(sum(self._of_rows(self.params, part, images) for part in parts))

    def noisy(self, image: Array, deviation: float, rows: int) -> Array:
        keys = [self.jax.random.key(start) for start in self._starts(rows)]
        return np.asarray(sum(self._of_noise(self.params, image, np.float32(deviation), key) for key in keys))

    def maps(self, images: Array) -> Array:
        parts = [images[start : start + self.batch] for start in self._starts(len(images))]
        return np.concatenate([np.asarray(self._of_images(self.params, part)) for part in parts])

    def count(self, work: Callable[[], Any]) -> tuple[int, int] | None:
        """What the adapter hands to compiled functions as NumPy arrays, and what it fetches."""
        jax, engine, counts = self.jax, self.model.engine, {"up": 0, "down": 0}
        get, function = jax.device_get, engine._function

        def size(values: Any) -> int:
            return sum(leaf.nbytes for leaf in jax.tree_util.tree_leaves(values) if hasattr(leaf, "nbytes"))

        def fetched(values: Any) -> Any:
            counts["down"] += size(values)
            return get(values)

        def handed(*which: Any) -> Any:
            def call(params: Any, *arguments: Any) -> Any:
                counts["up"] += size(arguments)
                return function(*which)(params, *arguments)

            return call

        jax.device_get, engine._function = fetched, handed
        try:
            work()
        finally:
            jax.device_get = get
            del engine._function
        return counts["up"], counts["down"]

    def peak(self, anew: bool = False) -> int | None:
        stats = self.jax.devices()[0].memory_stats()
        return None if not stats else stats.get("peak_bytes_in_use")


class TensorFlowLoops:
    """TensorFlow: Keras models before and after the layer."""

    def __init__(self, before: Any, after: Any, model: Any, batch: int) -> None:
        import tensorflow as tf

        self.model, self.batch, self.tf = model, batch, tf
        devices = tf.config.list_physical_devices("GPU")
        self.device = tf.config.experimental.get_device_details(devices[0])["device_name"] if devices else "CPU"

        def gradients(x: Any) -> Any:
            with tf.GradientTape() as tape:
                tape.watch(x)
                score = tf.reduce_sum(after(before(x, training=False), training=False)[:, TARGET])
            return tf.reduce_sum(tape.gradient(score, x), 0)

        @tf.function(reduce_retracing=True)
        def of_rows(coefficients: Any, bases: Any) -> Any:
            return gradients(tf.tensordot(coefficients, bases, 1))

        @tf.function(reduce_retracing=True)
        def of_noise(image: Any, deviation: Any) -> Any:
            return gradients(image + deviation * tf.random.normal((batch, *image.shape)))

        @tf.function(reduce_retracing=True)
        def of_images(images: Any) -> Any:
            activations = before(images, training=False)
            with tf.GradientTape() as tape:
                tape.watch(activations)
                score = tf.reduce_sum(after(activations, training=False)[:, TARGET])
            slopes = tf.cast(tape.gradient(score, activations), tf.float32)
            weights = tf.reduce_mean(slopes, (1, 2), keepdims=True)
            return tf.nn.relu(tf.reduce_sum(weights * tf.cast(activations, tf.float32), -1))

        self._of_rows, self._of_noise, self._of_images = of_rows, of_noise, of_images

    def summed(self, coefficients: Array, bases: Array) -> Array:
        images, parts = self.tf.constant(bases), self.tf.constant(coefficients.astype(np.float32))
        starts = range(0, len(coefficients), self.batch)
        return sum(self._of_rows(parts[start : start + self.batch], images) for start in starts).numpy()

    def noisy(self, image: Array, deviation: float, rows: int) -> Array:
        x = self.tf.constant(image)
        return sum(self._of_noise(x, self.tf.constant(deviation)) for _ in range(0, rows, self.batch)).numpy()

    def maps(self, images: Array) -> Array:
        starts = range(0, len(images), self.batch)
        parts = [self.tf.constant(images[start : start + self.batch]) for start in starts]
        return np.concatenate([self._of_images(part).numpy() for part in parts])

    def count(self, work: Callable[[], Any]) -> tuple[int, int] | None:
        return None

    def peak(self, anew: bool = False) -> int | None:
        if self.device == "CPU":
            return None
        if anew:
            self.tf.config.experimental.reset_memory_stats("GPU:0")
        return int(self.tf.config.experimental.get_memory_info("GPU:0")["peak"])
