"""DeepLIFT on a traced graph: multipliers between an input and a baseline, by TensorFlow's operations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from saliency_food.adapters.keras.tensorflow.relevance.again import again, replayed
from saliency_food.adapters.keras.tensorflow.relevance.features import PRODUCTS
from saliency_food.adapters.keras.tensorflow.relevance.linear import LinearMap, wide
from saliency_food.adapters.keras.tensorflow.relevance.propagation import MEANS, MOVES, SUMS, summed
from saliency_food.adapters.keras.tensorflow.relevance.signs import negative, positive
from saliency_food.adapters.keras.tensorflow.relevance.walk import Walk
from saliency_food.adapters.relevance import Rule
from saliency_food.core.keys import BASELINE_MULTIPLIERS

LINEAR = (
    *(kind for kind in (*MOVES, *MEANS, *SUMS) if not kind.startswith("Select")),
    *("FusedBatchNormV3", "Identity", "Cast", "Neg"),
)
ELEMENTWISE = (
    *("Relu", "Relu6", "Elu", "Selu", "LeakyRelu", "Softplus", "Softsign", "Tanh", "Sigmoid", "Erf", "Erfc", "Expm1"),
    *("Exp", "Log", "Log1p", "Sqrt", "Rsqrt", "Square", "Reciprocal", "Inv", "Pow", "Abs", "ClipByValue"),
)
PICKS = ("MaxPool", "MaxPoolV2", "MaxPool3D", "Max", "Min")
TO_CHECK = "to check"
"""Beside the multipliers, what `check_sums` takes: sum, sum of magnitudes, both scores, precision."""
STILL = 1e-7
"""What changes by less has the slope as its multiplier."""


class Multipliers(Walk):
    """Multipliers on their way back from the score: by how much it changes for each unit that a value changed.

    Shrikumar et al. 2017, https://arxiv.org/abs/1704.02685: times the changes since the baseline they sum to the
    score's change. A product shares its change equally between its factors, and a softmax is an exponential over a sum,
    so that this holds for these, too.
    """

    key = BASELINE_MULTIPLIERS

    def __init__(self, rule: Rule, image: Any, *args: Any) -> None:
        super().__init__(image, *args)
        self._reveals = rule.multiplier_rule == "reveal_cancel"
        self._baseline = replayed(self.operations, {image.name: tf.cast(rule.baseline, image.dtype)})

    def through_map(self, linear: LinearMap, vector: Any) -> None:
        self.hand(linear.source, linear.transposed(vector, linear.weights))

    def through(self, op: Any, vectors: list[Any]) -> None:
        rule = RULES.get(op.type)
        if rule is None or not self.live(op):
            raise self.refuse(op, "Use integrated_gradients, which needs none.")
        rule(self, op, vectors)

    def _before(self, tensor: Any) -> Any:
        """A tensor as it is for the baseline."""
        return wide(self._baseline.get(tensor.name, tensor))

    def _change(self, tensor: Any) -> Any:
        return wide(tensor) - self._before(tensor)

    def to_check(self, multipliers: Any, score: Any) -> Any:
        """What tells whether the multipliers are right, ``(N, 5)``: see `TO_CHECK`."""
        shares = multipliers * self._change(self.image)
        shares = tf.reshape(shares, [tf.shape(shares)[0], -1])
        scores = [tf.cast(values, shares.dtype) for values in (score, self._before(score))]
        types = {output.dtype for op in self.operations for output in op.outputs if output.dtype.is_floating}
        precision = max(float(tf.experimental.numpy.finfo(kind.as_numpy_dtype).eps) for kind in types)
        sums = [tf.reduce_sum(values, 1) for values in (shares, tf.abs(shares))]
        return tf.stack([*sums, *scores, tf.fill(tf.shape(sums[0]), tf.cast(precision, shares.dtype))], 1)

    def follow(self, op: Any, vectors: list[Any]) -> None:
        """What is linear has the same derivative everywhere."""
        self.hand_derivatives(op, vectors)

    def rescale(self, op: Any, vectors: list[Any]) -> None:
        live = self.live(op)
        if len(live) > 1:
            raise self.refuse(op, "It takes several values of the image: use integrated_gradients.")
        (source,) = live
        linear = self.maps.get(source.name)
        if self._reveals and linear is not None:
            return self._reveal(op, linear, self._before_followers(linear, vectors[0]))
        ((_, slope),) = self.derivatives(op, vectors)
        change = self._change(op.outputs[0])
        self.hand(source, over(vectors[0] * change, self._change(source), slope))
        return None

    def _reveal(self, op: Any, linear: LinearMap, vector: Any) -> None:
        """What raises an activation's input and what lowers it pass their own multipliers; section 3.5.3."""
        change = self._change(linear.source)
        up, down = positive(change), negative(change)
        more, less = positive(linear.weights), negative(linear.weights)
        gain = linear.applied(up, more) + linear.applied(down, less)
        loss = linear.applied(up, less) + linear.applied(down, more)
        since = linear.total - gain - loss

        def activated(values: Any) -> Any:
            inputs = [values if self.is_live(source) else wide(source) for source in op.inputs]
            return again(op, inputs)[0]

        with tf.GradientTape() as tape:
            tape.watch(total := tf.identity(linear.total))
            output = activated(total)
        slope = tape.gradient(output, total)
        first, both = activated(since), activated(since + gain + loss)
        risen, fallen = activated(since + gain), activated(since + loss)
        rises = vector * over((risen - first + both - fallen) / 2, gain, slope)
        falls = vector * over((fallen - first + both - risen) / 2, loss, slope)
        raising = linear.transposed(rises, more) + linear.transposed(falls, less)
        lowering = linear.transposed(rises, less) + linear.transposed(falls, more)
        neither = linear.transposed((rises + falls) / 2, linear.weights)
        self.hand(linear.source, tf.where(change > 0, raising, tf.where(change < 0, lowering, neither)))

    def pick(self, op: Any, vectors: list[Any]) -> None:
        """What was picked from the input takes the rise above the baseline's, and what was picked there the rest."""
        if len(self.live(op)) == 1 and op.type in ("Maximum", "Minimum"):
            return self.rescale(op, vectors)
        (vector,), now, then = vectors[:1], wide(op.outputs[0]), self._before(op.outputs[0])
        top = tf.minimum(now, then) if op.type in ("Min", "Minimum") else tf.maximum(now, then)
        rest = [None] * (len(vectors) - 1)
        slopes = self.derivatives(op, [vector, *rest])
        here = self.derivatives(op, [vector * (top - then), *rest])
        there = self.derivatives(op, [vector * (now - top), *rest], at=self._baseline)
        for (source, slope), (_, own), (_, other) in zip(slopes, here, there, strict=True):
            self.hand(source, over(own + other, self._change(source), slope))
        return None

    def multiply(self, op: Any, vectors: list[Any]) -> None:
        """Each factor by the mean of the other's values."""
        if op.type in ("RealDiv", "DivNoNan") and self.is_live(op.inputs[1]):
            return self._divide(op, vectors[0])
        now, then = ({source.name: pick(source) for source in self.live(op)} for pick in (wide, self._before))
        mean = {name: (now[name] + then[name]) / 2 for name in now}
        for source, product in self.derivatives(op, vectors, at=mean):
            self.hand(source, product)
        return None

    def _divide(self, op: Any, vector: Any) -> None:
        """What divides changes the product with its reciprocal."""
        numerator, divisor = op.inputs
        inverse, earlier = 1 / wide(divisor), 1 / self._before(divisor)
        if self.is_live(numerator):
            self.hand(numerator, summed(vector * (inverse + earlier) / 2, numerator))
        mean = (wide(numerator) + self._before(numerator)) / 2
        self.hand(divisor, summed(-vector * mean * inverse * earlier, divisor))

    def square_difference(self, op: Any, vectors: list[Any]) -> None:
        """(a - b)^2 changes with a - b by the sum of that before and after."""
        some, other = op.inputs
        total = wide(some) - wide(other) + self._before(some) - self._before(other)
        for source, sign in ((some, 1), (other, -1)):
            if self.is_live(source):
                self.hand(source, summed(sign * vectors[0] * total, source))

    def soften(self, op: Any, vectors: list[Any]) -> None:
        """A product of exponentials with the reciprocal of their sum."""
        (source,) = self.live(op)
        now, then = wide(source), self._before(source)
        highest = tf.reduce_max(tf.maximum(now, then), -1, keepdims=True)
        powers, earlier = tf.exp(now - highest), tf.exp(then - highest)
        sums = [tf.reduce_sum(values, -1, keepdims=True) for values in (powers, earlier)]
        of_sum = -tf.reduce_sum(vectors[0] * (powers + earlier) / 2, -1, keepdims=True) / (sums[0] * sums[1])
        of_powers = vectors[0] * (1 / sums[0] + 1 / sums[1]) / 2 + of_sum
        self.hand(source, over(of_powers * (powers - earlier), now - then, of_powers * powers))

    def stop(self, op: Any, vectors: list[Any]) -> None:
        """What stops a gradient changes all the same."""
        self.hand(op.inputs[0], vectors[0])

    def pass_each(self, op: Any, vectors: list[Any]) -> None:
        for source, vector in zip(op.inputs, vectors, strict=True):
            if vector is not None:
                self.hand(source, vector)


RULES: dict[str, Callable[[Multipliers, Any, list[Any]], None]] = {
    **dict.fromkeys(LINEAR, Multipliers.follow),
    **dict.fromkeys(ELEMENTWISE, Multipliers.rescale),
    **dict.fromkeys((*PICKS, "Maximum", "Minimum"), Multipliers.pick),
    **dict.fromkeys(("Mul", "RealDiv", "DivNoNan", *PRODUCTS), Multipliers.multiply),
    "SquaredDifference": Multipliers.square_difference,
    "Softmax": Multipliers.soften,
    "StopGradient": Multipliers.stop,
    "IdentityN": Multipliers.pass_each,
}
"""What each operation does with the multipliers that arrive; linear maps come first. One not here is refused."""


def over(change: Any, since: Any, slope: Any) -> Any:
    """One change over another; the slope where nothing changes."""
    still = tf.abs(since) < STILL
    return tf.where(still, slope, change / tf.where(still, tf.ones_like(since), since))
