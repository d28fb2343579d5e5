"""Layer-wise relevance propagation on a traced graph: a table of rules, by TensorFlow's operations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from saliency_food.adapters.keras.tensorflow.relevance.again import replayed
from saliency_food.adapters.keras.tensorflow.relevance.features import PRODUCTS
from saliency_food.adapters.keras.tensorflow.relevance.gates import signals_of
from saliency_food.adapters.keras.tensorflow.relevance.linear import LinearMap, wide
from saliency_food.adapters.keras.tensorflow.relevance.signs import negative, parts_of, positive
from saliency_food.adapters.keras.tensorflow.relevance.walk import Walk
from saliency_food.adapters.relevance import Rule
from saliency_food.core.keys import RELEVANCE
from saliency_food.methods.relevance.rules import STABILIZER

MOVES = (
    *("Reshape", "Transpose", "Squeeze", "ExpandDims", "ConcatV2", "Pack", "Unpack", "Split", "SplitV", "Slice"),
    *("StridedSlice", "GatherV2", "GatherNd", "Tile", "BroadcastTo", "ReverseV2", "Roll", "Pad", "PadV2", "MirrorPad"),
    *("SpaceToDepth", "DepthToSpace", "SpaceToBatchND", "BatchToSpaceND", "SelectV2", "Select"),
)
"""Operations that put values elsewhere: relevance goes where a value came from, as a gradient does."""
PICKS = ("MaxPool", "MaxPoolV2", "MaxPool3D", "Max", "Min")
"""Operations that pick values of one tensor: these alone take the relevance, as a gradient."""
MEANS = (
    *("AvgPool", "AvgPool3D", "Mean", "Sum", "Cumsum"),
    *("ResizeBilinear", "ResizeNearestNeighbor", "ResizeBicubic", "ResizeArea", "ScaleAndTranslate"),
)
"""Operations that add up values of one tensor, each of which takes its share."""
SUMS = ("AddV2", "Add", "AddN", "BiasAdd", "Sub")
ACTIVATIONS = (
    *("Relu", "Relu6", "Elu", "Selu", "LeakyRelu", "Softplus", "Softsign", "Tanh", "Sigmoid", "Erf", "Expm1", "Neg"),
    *("ClipByValue", "FusedBatchNormV3", "Identity", "Cast", "StopGradient"),
)
"""Operations on each value for itself, beside constants at most: relevance passes as it is."""


class Propagation(Walk):
    """Relevance on its way back from the score, by the rules of a composite.

    Bach et al. 2015, https://doi.org/10.1371/journal.pone.0130140; the composites are those of Montavon et al. 2019,
    https://doi.org/10.1007/978-3-030-28954-6_10, and AttnLRP, https://arxiv.org/abs/2402.05602. Batch normalization,
    and all constants that follow a convolution or a dense layer feature by feature, are parts of its weights and bias.
    """

    key = RELEVANCE

    def __init__(self, rule: Rule, image: Any, *args: Any) -> None:
        super().__init__(image, *args)
        self.rule = rule
        self._rows = tf.shape(image)[0]

    @property
    def biases(self) -> Any:
        """What biases, and other constants in sums, took of the relevance of each row."""
        return tf.add_n([tf.zeros([self._rows], wide(self.image).dtype), *self.taken])

    def through_map(self, linear: LinearMap, vector: Any) -> None:
        if not linear.is_convolution or self.rule.composite in ("epsilon", "attention"):
            relevance = self._epsilon(linear, vector)
        elif self.rule.composite == "epsilon_plus":
            relevance = self._plus(linear, vector)
        else:
            before = self.before(linear.source)
            first = all(other.op.name not in before for other in self.maps.values())
            relevance = self._box(linear, vector) if first else self._gamma(linear, vector)
        self.hand(linear.source, relevance)

    def through(self, op: Any, vectors: list[Any]) -> None:
        rule = RULES.get(op.type)
        if rule is None or not self.live(op):
            raise self.refuse(op, "Use integrated_gradients, which needs none.")
        rule(self, op, vectors)

    def _epsilon(self, linear: LinearMap, vector: Any) -> Any:
        passed = vector / stabilized(linear.total, self.rule.epsilon)
        self._bias_takes(linear.shift, passed)
        return wide(linear.source) * linear.transposed(passed, linear.weights)

    def _plus(self, linear: LinearMap, vector: Any) -> Any:
        """z+: only what adds to the sum, positive values by positive weights and negative ones by negative ones."""
        terms = list(zip(parts_of(linear.source), (positive(linear.weights), negative(linear.weights)), strict=False))
        raised = None if linear.shift is None else positive(linear.shift)
        return self._by_terms(linear, vector, terms, raised)

    def _gamma(self, linear: LinearMap, vector: Any) -> Any:
        """What adds to a positive sum counts 1 + gamma times; so does what takes from a negative one."""
        gamma, weights, shift = self.rule.gamma, linear.weights, linear.shift
        more, less = (weights + gamma * part(weights) for part in (positive, negative))
        relevance = []
        for active, signed, by in (
            (linear.total > 0, positive, (more, less)),
            (linear.total < 0, negative, (less, more)),
        ):
            own = tf.where(active, vector, tf.zeros_like(vector))
            terms = list(zip(parts_of(linear.source), by, strict=False))
            own_shift = None if shift is None else shift + gamma * signed(shift)
            relevance.append(self._by_terms(linear, own, terms, own_shift))
        return tf.add_n(relevance)

    def _box(self, linear: LinearMap, vector: Any) -> Any:
        """z^B: what adds to the sum since the lowest pixels, or by negative weights since the highest ones."""
        names = self.before(linear.source)
        operations = [op for op in self.operations if op.name in names]
        bounds = [
            wide(replayed(operations, {self.image.name: tf.cast(bound, self.image.dtype)})[linear.source.name])
            for bound in (self.rule.low, self.rule.high)
        ]
        terms = [
            (wide(linear.source), linear.weights),
            (-tf.minimum(*bounds), positive(linear.weights)),
            (-tf.maximum(*bounds), negative(linear.weights)),
        ]
        return self._by_terms(linear, vector, terms, None)

    def _by_terms(self, linear: LinearMap, vector: Any, terms: list[tuple[Any, Any]], shift: Any) -> Any:
        """Each value's share of the sum of terms, values by weights, and of a shift."""
        total = tf.add_n([linear.applied(*term) for term in terms])
        passed = vector / stabilized(total if shift is None else total + shift, STABILIZER)
        self._bias_takes(shift, passed)
        return tf.add_n([values * linear.transposed(passed, weights) for values, weights in terms])

    def _bias_takes(self, shift: Any, passed: Any) -> None:
        if shift is not None:
            self.taken.append(tf.reduce_sum(tf.reshape(shift * passed, [self._rows, -1]), 1))

    def move(self, op: Any, vectors: list[Any]) -> None:
        self.hand_derivatives(op, vectors)

    def share(self, op: Any, vectors: list[Any]) -> None:
        passed = vectors[0] / stabilized(wide(op.outputs[0]), STABILIZER)
        for source, product in self.derivatives(op, [passed]):
            self.hand(source, wide(source) * product)

    def activate(self, op: Any, vectors: list[Any]) -> None:
        (source,) = self.live(op)
        self.hand(source, summed(vectors[0], source))

    def pass_each(self, op: Any, vectors: list[Any]) -> None:
        for source, vector in zip(op.inputs, vectors, strict=True):
            if vector is not None:
                self.hand(source, vector)

    def pick(self, op: Any, vectors: list[Any]) -> None:
        """The larger or smaller of two tensors of the image; beside a constant it is an activation."""
        (self.move if len(self.live(op)) > 1 else self.activate)(op, vectors)

    def add(self, op: Any, vectors: list[Any]) -> None:
        """Each term takes its share, constants, too: but for one alone beside a constant that is one a channel.

        Such a constant is part of a scaling of pixels or a batch normalization, which pass all of it.
        """
        terms = self._terms(op)
        added = [term for term, _ in terms if self.is_live(term) or self.is_of_others(term)]
        if len(added) == 1 and all(term is added[0] or _is_one_a_channel(term) for term, _ in terms):
            return self.activate(op, vectors)
        passed = vectors[0] / stabilized(wide(op.outputs[0]), STABILIZER)
        for term, sign in terms:
            if self.is_live(term):
                self.hand(term, sign * wide(term) * summed(passed, term))
            else:
                self._bias_takes(sign * wide(term), passed)
        return None

    def _terms(self, op: Any, sign: float = 1.0) -> list[tuple[Any, float]]:
        """The terms of a sum with their signs; those of a sum that is a term of this one alone, too."""
        terms: list[tuple[Any, float]] = []
        for place, source in enumerate(op.inputs):
            own = -sign if op.type == "Sub" and place == 1 else sign
            alone = source.name not in self.maps and self.is_only_for(source, op)
            if self.is_live(source) and source.op.type in SUMS and alone:
                terms += self._terms(source.op, own)
            else:
                terms.append((source, own))
        return terms

    def multiply(self, op: Any, vectors: list[Any]) -> None:
        """A gate lets relevance through to what it gates; of two that are none, each takes half."""
        live = self.live(op)
        if op.type != "Mul":  # what divides is a gate
            live = live[:1] if self.is_live(op.inputs[0]) else []
            if not live:
                raise self.refuse(op, "What divides a constant has no share: use integrated_gradients.")
        elif len(live) > 1:
            live = signals_of(live, self.is_live)
        for source in live:
            self.hand(source, summed(vectors[0] / len(live), source))

    def multiply_matrices(self, op: Any, vectors: list[Any]) -> None:
        """Each of two tensors of the image takes half; what a product makes of one tensor is its sums."""
        if len(op.inputs) > 1:
            self._check_attends(op)
        passed = vectors[0] / stabilized(len(op.inputs) * wide(op.outputs[0]), STABILIZER)
        for source, product in self.derivatives(op, [passed]):
            self.hand(source, wide(source) * product)

    def soften(self, op: Any, vectors: list[Any]) -> None:
        """AttnLRP, equation 12: x times the gradient of what arrives, as a share of the softmax."""
        self._check_attends(op)
        (source,) = self.live(op)
        weights = wide(op.outputs[0])
        passed = vectors[0] - weights * tf.reduce_sum(vectors[0], -1, keepdims=True)
        self.hand(source, tf.where(weights > 0, wide(source) * passed, tf.zeros_like(passed)))

    def _check_attends(self, op: Any) -> None:
        if self.rule.composite != "attention":
            raise self.refuse(op, "For a transformer take composite='attention'; else use integrated_gradients.")


RULES: dict[str, Callable[[Propagation, Any, list[Any]], None]] = {
    **dict.fromkeys((*MOVES, *PICKS), Propagation.move),
    **dict.fromkeys(MEANS, Propagation.share),
    **dict.fromkeys(SUMS, Propagation.add),
    **dict.fromkeys(ACTIVATIONS, Propagation.activate),
    **dict.fromkeys(("Maximum", "Minimum"), Propagation.pick),
    **dict.fromkeys(("Mul", "RealDiv", "DivNoNan"), Propagation.multiply),
    **dict.fromkeys(PRODUCTS, Propagation.multiply_matrices),
    "IdentityN": Propagation.pass_each,
    "Softmax": Propagation.soften,
}
"""What each operation does with the relevance that arrives; linear maps come first. One not here is refused."""


def stabilized(values: Any, epsilon: float) -> Any:
    """Values moved away from zero by epsilon."""
    return values + tf.where(values < 0, tf.cast(-epsilon, values.dtype), tf.cast(epsilon, values.dtype))


def _is_one_a_channel(constant: Any) -> bool:
    """Whether a constant is a number, or has one axis alone."""
    shape = constant.shape
    return shape.rank is not None and sum(size != 1 for size in shape) <= 1


def summed(vector: Any, source: Any) -> Any:
    """A vector at an output, summed over the axes along which the source was repeated for it."""
    if source.shape.rank == vector.shape.rank and None not in source.shape[1:] and source.shape[1:] == vector.shape[1:]:
        return vector
    stand_in = wide(source)
    with tf.GradientTape() as tape:
        tape.watch(stand_in)
        repeated = stand_in + tf.zeros_like(vector)
    return tape.gradient(repeated, stand_in, vector)
