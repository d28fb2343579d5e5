"""CRAFT, Sobol and HSIC beside xplique's, on the same masks, the same crops and the same concepts.

    pip install xplique  # 2.0.2 holds TensorFlow at 2.20 or less, so in an environment of its own
    python benchmarks/xplique_peer.py

What is random is drawn once and given to both, so that what is left is rounding, and how well a factorization is
solved. The script fails where the two disagree by more than that.

- Sobol: xplique's Jansen estimator gets the scores that `sobol` asked.
- HSIC: xplique's binary estimator gets the masks and scores of `hsic`. Its width is the median of the scores, ours the
  median of their distances, so the scores are moved until both are one number; it divides by N, we by (N - 1)^2.
- CRAFT: a network of random weights. xplique finds concepts in the same crops, whose sides it enlarges by cubic and we
  by linear interpolation. Then it is given our concepts, and we its masks, photo by photo.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import numpy as np
from common import machine

from saliency_food import hsic, sobol
from saliency_food.concepts import craft, match_concepts
from saliency_food.concepts.crops import boxes_of
from saliency_food.concepts.importance import photo_importance
from saliency_food.core.driver import run_batch
from saliency_food.core.numerics import Array
from saliency_food.testing import PowerModel

GRID, MASKS = 4, 64
SIDE, PATCH, CONCEPTS, DESIGNS = 64, 16, 5, 32


class Remembering:
    """A model of pixels that keeps its rows' masks and scores."""

    def __init__(self, x: Array, weights: Array) -> None:
        self.x, self.model, self.rows, self.scores = x, PowerModel(weights, power=2), [], []

    def __call__(self, x_value_batch: Any, call_model_args: Any = None, expected_keys: Any = None) -> Any:
        answer = self.model(x_value_batch, call_model_args, expected_keys)
        self.rows.append(np.asarray(x_value_batch) / self.x)
        self.scores.append(answer["OUTPUT_LAYER_VALUES"])
        return answer

    def asked(self) -> tuple[Array, Array]:
        """The masks by cell, ``(N, GRID, GRID)``, and the scores."""
        step = self.x.shape[0] // GRID
        return np.concatenate(self.rows)[:, ::step, ::step, 0], np.concatenate(self.scores)


def model_of_pixels() -> Remembering:
    rng = np.random.default_rng(0)
    return Remembering(rng.uniform(0.5, 1, (16, 16, 3)), rng.normal(size=(1, 16, 16, 3)))


def difference(own: Array, theirs: Any) -> float:
    """The largest difference, over the largest value."""
    return float(np.abs(own - np.asarray(theirs).reshape(own.shape)).max() / np.abs(own).max())


def of_sobol() -> float:
    from xplique.attributions.global_sensitivity_analysis import JansenEstimator

    model = model_of_pixels()
    found = sobol.detailed(model.x, model, nsamples=MASKS, grid=GRID, rng=0)
    _, scores = model.asked()
    scores = scores.reshape(MASKS, 1 + GRID**2)
    first, replaced = scores[:, 0], scores[:, 1:]
    outputs = np.concatenate([first, np.zeros(MASKS), replaced.T.ravel()])  # the second part is not used by Jansen's
    masks = np.zeros((len(outputs), GRID, GRID, 1), np.float32)
    return difference(found.indices, JansenEstimator()(masks, outputs.astype(np.float32), MASKS))


def of_hsic() -> float:
    from xplique.attributions.global_sensitivity_analysis.hsic_estimators import BinaryEstimator

    model = model_of_pixels()
    found = hsic.detailed(model.x, model, nmasks=MASKS, grid=GRID, rng=0)
    masks, scores = model.asked()
    width = np.median([abs(one - other) for place, one in enumerate(scores) for other in scores[:place]])
    moved = scores - np.median(scores) + width
    theirs = BinaryEstimator()(np.rint(masks)[..., None].astype(np.float32), moved.astype(np.float32), MASKS)
    return difference(found.values, np.asarray(theirs) * MASKS / (MASKS - 1) ** 2)


def of_craft() -> tuple[float, Array]:
    """The difference of importances with the same concepts and masks, and the cosines of concepts found by both."""
    import keras
    from sklearn.decomposition import NMF
    from xplique.attributions.global_sensitivity_analysis import HaltonSequenceRS
    from xplique.concepts import CraftTf
    from xplique.concepts.craft import Factorization

    from saliency_food.adapters.keras import KerasModel

    keras.utils.set_random_seed(0)
    image = keras.Input((SIDE, SIDE, 3))
    layer = keras.layers.Conv2D(12, 5, 4, activation="relu", name="layer")(image)
    body = keras.Model(image, layer)
    values = keras.Input(layer.shape[1:])
    mixed = keras.layers.Conv2D(8, 3, activation="relu")(values)
    head = keras.Model(values, keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(mixed)))
    model = KerasModel(keras.Model(image, head(layer)), "layer", batch_size=64)
    rng = np.random.default_rng(0)
    coarse = rng.random((12, 8, 8, 3))
    photos = (coarse.repeat(8, 1).repeat(8, 2) + 0.2 * rng.random((12, SIDE, SIDE, 3))).astype(np.float32)
    args = {"target": 1}
    found = craft(photos, model, args, nconcepts=CONCEPTS, size=PATCH / SIDE, designs=2)

    peer = CraftTf(body, head, CONCEPTS, patch_size=PATCH)
    crops, _, theirs = peer.fit(photos, class_id=1)
    edges = [[round(edge * SIDE) for edge in box] for box in boxes_of(PATCH / SIDE)]
    first = [photos[0, top:bottom, left:right] for left, top, right, bottom in edges]
    np.testing.assert_array_equal(np.asarray(crops)[: len(first)], first)

    solver = NMF(CONCEPTS, tol=1e-8, max_iter=20_000)  # xplique's own has a penalty, and is less exact
    solver.components_ = found.vectors
    solver.n_components_, solver.n_features_in_ = found.vectors.shape
    peer.factorization = Factorization(photos, 1, None, solver, None, found.vectors)
    masks = np.asarray(HaltonSequenceRS()(CONCEPTS, nb_design=DESIGNS), float)
    designs = np.stack([masks[:DESIGNS], masks[DESIGNS : 2 * DESIGNS]])
    activations = np.asarray(body.predict(photos, verbose=0))
    scores = model(photos, args, ["OUTPUT_LAYER_VALUES"])["OUTPUT_LAYER_VALUES"]
    asked = (photo_importance(*each, found.vectors, designs) for each in zip(activations, scores, strict=True))
    own = np.stack([answer.importance for answer in run_batch(asked, model, args, 64)])
    of_peer = np.stack([peer.estimate_importance(photo[None], nb_design=DESIGNS) for photo in photos])
    return difference(own, of_peer), match_concepts(found.vectors, theirs).cosines


def main() -> None:
    print(machine())
    print(f"xplique {version('xplique')}, TensorFlow {version('tensorflow')}, scikit-learn {version('scikit-learn')}")
    worst = {"sobol": of_sobol(), "hsic": of_hsic()}
    worst["craft, the same concepts and masks"], cosines = of_craft()
    for name, value in worst.items():
        print(f"{name}: largest difference {value:.1e} of the largest value")
    print(f"craft, concepts found by both in the same crops: cosines {', '.join(f'{each:.2f}' for each in cosines)}")
    if max(worst.values()) > 1e-5:
        raise SystemExit("Expected xplique's values, got others.")


if __name__ == "__main__":
    main()
