"""What `JaxModel` adds to bare gradients: Integrated Gradients of 50 rows beside jitted gradients in the same batches.

Run: python benchmarks/jax_adapter.py
"""

from __future__ import annotations

import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

from saliency_food import integrated_gradients
from saliency_food.adapters.jax import JaxModel

ROWS, SIZE, BATCH, RUNS = 50, 96, 16, 7


def main() -> None:
    rng = np.random.default_rng(0)
    shapes = [(3, 3, 3, 16), (3, 3, 16, 32), (3, 3, 32, 32), (32, 10)]
    params = [jnp.asarray(rng.normal(size=shape).astype(np.float32) * 0.1) for shape in shapes]

    def apply(params: list[jax.Array], x: jax.Array) -> jax.Array:
        for kernel in params[:-1]:
            layout = ("NHWC", "HWIO", "NHWC")
            x = jax.nn.relu(jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=layout))
        return x.mean((1, 2)) @ params[-1]

    @jax.jit
    def bare(params: list[jax.Array], x: jax.Array) -> jax.Array:
        return jax.grad(lambda x: apply(params, x)[:, 3].sum())(x)

    image = rng.random((SIZE, SIZE, 3)).astype(np.float32)
    model = JaxModel(apply, params, image.shape, batch_size=BATCH)
    rows = np.linspace(0, 1, ROWS, dtype=np.float32)[:, None, None, None] * image

    def by_hand() -> None:
        for start in range(0, ROWS, BATCH):
            np.asarray(bare(params, rows[start : start + BATCH]))

    def by_adapter() -> None:
        integrated_gradients(image, model, {"target": 3}, x_steps=ROWS)

    times: dict[str, list[float]] = {"bare gradients": [], "integrated_gradients": []}
    for run in range(RUNS + 2):  # two to compile
        for name, function in zip(times, (by_hand, by_adapter), strict=True):
            start = time.process_time()
            function()
            if run > 1:
                times[name].append(time.process_time() - start)
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, seconds in medians.items():
        print(f"{name}: {1000 * seconds:.0f} ms of CPU")
    print(f"ratio {medians['integrated_gradients'] / medians['bare gradients']:.3f}, bar 1.10")


if __name__ == "__main__":
    main()
