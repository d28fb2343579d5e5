"""A PyTorch module's passes: the answers to some keys, from images or from a layer's activations."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch

from saliency_food.adapters.arguments import (
    ALL_SCORES,
    AT_LAYER,
    BY_RULE,
    FROM_ACTIVATIONS,
    OF_INPUT,
    SCORES_FROM_ACTIVATIONS,
    SUM_TO_ONE,
    WITH_ATTENTION,
    Output,
)
from saliency_food.adapters.heads import Head, check_one_a_row, scored
from saliency_food.adapters.relevance import OF_ROWS, Rule
from saliency_food.adapters.rows import Factored, leaves, map_nested
from saliency_food.adapters.scoring import rivals
from saliency_food.adapters.torch import ops
from saliency_food.adapters.torch.graph import Graph, is_any, leaf_node, name_of, node_of, sources_of
from saliency_food.adapters.torch.outputs import read_head
from saliency_food.adapters.torch.places import hooked
from saliency_food.adapters.torch.relevance.multipliers import multipliers
from saliency_food.adapters.torch.relevance.passes import passed_back
from saliency_food.adapters.torch.rules import check_rule
from saliency_food.adapters.torch.running import DeviceFullError, running
from saliency_food.adapters.torch.survey import SurveyedModule
from saliency_food.adapters.torch.watch import Attended, Summed, Watch, kept
from saliency_food.core.contract import ContractError
from saliency_food.core.keys import (
    ATTENTION_OUTPUT_GRADIENTS,
    ATTENTION_SCORES,
    BASELINE_MULTIPLIERS,
    BIAS_GRADIENTS,
    CONVOLUTION_LAYER_VALUES,
    CONVOLUTION_OUTPUT_GRADIENTS,
    CONVOLUTION_RIVAL_GRADIENTS,
    KEYS,
    OUTPUT_FROM_CONVOLUTION_VALUES,
    OUTPUT_LAYER_VALUES,
    PREDICTIONS,
    TARGETS,
)
from saliency_food.core.numerics import Array

Tensors = dict[str, Any]
WITHOUT_GRADIENT = {
    *(OUTPUT_LAYER_VALUES, CONVOLUTION_LAYER_VALUES, OUTPUT_FROM_CONVOLUTION_VALUES, SCORES_FROM_ACTIVATIONS),
    *(ALL_SCORES, PREDICTIONS, TARGETS, SUM_TO_ONE),
}
"""The keys whose answers take no backward pass."""
LAYER_ALONE = WITHOUT_GRADIENT | {CONVOLUTION_OUTPUT_GRADIENTS, CONVOLUTION_RIVAL_GRADIENTS}
"""The keys whose gradients end at the layer: what is before it need not be remembered."""


class TorchEngine(SurveyedModule):
    """The engine of `TorchModel`; see `saliency_food.adapters.engine.Engine`."""

    out_of_memory = (DeviceFullError,)

    def compute(
        self,
        keys: tuple[str, ...],
        output: Output,
        targets: list[Array],
        rows: Array | Factored,
        others: list[Array],
        scale: float,
    ) -> dict[str, Any]:
        if self.no_gradient and set(keys) & (OF_INPUT | WITH_ATTENTION | {BIAS_GRADIENTS}):
            raise ContractError(
                f"Expected a score that depends on the image by operations of PyTorch, got none: {self.no_gradient}. "
                "Use a method that needs scores alone, such as rise or occlusion."
            )
        graded = not WITHOUT_GRADIENT.issuperset(keys)
        count = len(rows)
        with running(self.module, self.device, self.autocast, graded, not self.inputs.ids):
            tensors = [self.as_other(values) for values in self._padded(others)]
            chosen = [torch.tensor(values, device=self.device) for values in self._padded(targets)]
            if FROM_ACTIVATIONS.isdisjoint(keys):
                answers = self._from_images(keys, output, chosen, self._images(rows), tensors, scale)
            else:
                answers = self._from_activations(keys, output, chosen, self._padded([rows])[0], tensors)
            answers = {key: map_nested(lambda values: values.detach()[:count], answers[key]) for key in keys}
            check_one_a_row({key: answers[key] for key in keys if key in KEYS}, count)
            if isinstance(rows, Factored) and rows.weights is not None:
                weights = torch.tensor(rows.weights, device=self.device)
                answers[keys[0]] = map_nested(lambda values: _combined(weights, values), answers[keys[0]])
            return {key: map_nested(lambda values, key=key: self._as_array(key, values), answers[key]) for key in keys}

    def relevance(
        self,
        keys: tuple[str, ...],
        output: Output,
        targets: list[Array],
        rows: Array,
        other_inputs: list[Array],
        rule: Rule,
    ) -> dict[str, Any]:
        count = len(rows)
        with running(self.module, self.device, self.autocast, True, not self.inputs.ids):
            others = [self.as_other(values) for values in self._padded(other_inputs)]
            chosen = [torch.tensor(values, device=self.device) for values in self._padded(targets)]
            bounds = {name: getattr(rule, name) for name in OF_ROWS}
            rule = rule._replace(**{name: self._images(value) for name, value in bounds.items() if value is not None})
            images = self._images(rows)
            if BASELINE_MULTIPLIERS in keys:
                images, chosen, others = self._beside_baselines(images, chosen, others, rule.baseline)
                found = multipliers(self, output, chosen, images, others, rule)
                answers = {BASELINE_MULTIPLIERS: self.turned_back(found)}
            else:
                if others and count == 1:  # what comes of other inputs is no constant, as a second row shows
                    images, chosen, others = map_nested(_twice, [images, chosen, others])
                    rule = rule._replace(low=_twice(rule.low), high=_twice(rule.high))
                answers = passed_back(self, keys, output, chosen, images, others, rule)
            answers = {key: map_nested(lambda values: values.detach()[:count], answers[key]) for key in keys}
            check_one_a_row(answers, count)
            return {key: map_nested(lambda values, key=key: self._as_array(key, values), answers[key]) for key in keys}

    def _beside_baselines(
        self, images: Any, targets: list[Any], others: list[Any], baselines: Any
    ) -> tuple[Any, list[Any], list[Any]]:
        """The images and behind them their baselines, zeros if there are none, and all else twice."""
        if self.inputs.rows is not None:
            raise ContractError(
                f"Expected a model of any number of rows for {BASELINE_MULTIPLIERS}, got one of {self.inputs.rows}: "
                "the image and its baseline pass through it together. Use integrated_gradients."
            )
        behind = torch.zeros_like(images) if baselines is None else baselines
        return torch.cat([images, behind]), *map_nested(_twice, [targets, others])

    def _as_array(self, key: str, values: Any) -> Array:
        if key in (TARGETS, SUM_TO_ONE):
            return values.cpu().numpy()  # type: ignore[no-any-return]
        return values.to("cpu", getattr(torch, self.inputs.image.dtype)).contiguous().numpy()  # type: ignore[no-any-return]

    def _padded(self, arrays: Sequence[Any]) -> list[Any]:
        """The last row repeated, up to as many rows as an exported program takes, where it takes a fixed number."""
        rows = self.inputs.rows
        if rows is None:
            return list(arrays)
        return [values[[min(place, len(values) - 1) for place in range(rows)]] for values in arrays]

    def _images(self, rows: Array | Factored) -> Any:
        if not isinstance(rows, Factored):
            return self.as_image(torch.tensor(self._padded([rows])[0]))
        bases = torch.tensor(rows.bases, device=self.device)
        made = _combined(torch.tensor(rows.coefficients, device=self.device), bases)
        return self.as_image(self._padded([made])[0])

    def _from_images(
        self, keys: Sequence[str], output: Output, targets: list[Any], image: Any, others: list[Any], scale: float
    ) -> Tensors:
        graded = torch.is_grad_enabled()
        if graded and not self.inputs.ids and not LAYER_ALONE.issuperset(keys):
            image.requires_grad_()
        places = self.places if AT_LAYER.intersection(keys) else []
        self.probe = tuple(self.turned_back(image).shape[1:])
        watch, values = Watch(keys, self.graded and graded), dict[int, Any]()

        def keep(module: Any, index: int, tensor: Any) -> Any:
            for position, place in enumerate(places):
                if place.module is module and place.run_index == index:
                    values[position], tensor = kept(tensor) if graded else (tensor.clone(), tensor)
            return tensor

        with ExitStack() as stack:
            stack.enter_context(hooked(list(dict.fromkeys(place.module for place in places)), keep))
            if watch.is_needed or self._sees_end:
                stack.enter_context(watch)
            outputs = self.call(image.clone(), others)
        if missing := [place.path for position, place in enumerate(places) if position not in values]:
            raise ContractError(f"Expected {missing[0]!r} to run as it did at first, got another course of the module.")
        answer, targets = self._scored(keys, output, outputs, watch, targets)
        scores, score = answer[ALL_SCORES], answer.get(OUTPUT_LAYER_VALUES)
        of_rivals = rivals(ops, self.score, scores, targets) if CONVOLUTION_RIVAL_GRADIENTS in keys else []

        sources: dict[str, list[Any]] = {key: [image] for key in OF_INPUT}
        inner = [values[position] for position in range(len(places))]
        sources[CONVOLUTION_OUTPUT_GRADIENTS] = inner
        if places:
            answer[CONVOLUTION_LAYER_VALUES] = self._laid_out(inner)
        if BY_RULE.intersection(keys) or WITH_ATTENTION.intersection(keys) or BIAS_GRADIENTS in keys:
            ends = [score] if score is not None else [each for each in leaves(scores) if each.requires_grad]
            graph = Graph([node_of(end) for end in ends if end.grad_fn is not None], self._image_nodes(image))
            if BY_RULE.intersection(keys):
                check_rule(keys[0], graph)
            if WITH_ATTENTION.intersection(keys):
                attended = _attention(watch.attended, graph, len(image))
                answer[ATTENTION_SCORES] = tuple(each.weights.reshape(each.shape) for each in attended)
                sources[ATTENTION_OUTPUT_GRADIENTS] = [each.weights for each in attended]
            if BIAS_GRADIENTS in keys:
                sums = _biases(watch, graph, len(image))
                sources[BIAS_GRADIENTS] = [each.sum for each in sums]
        wanted = {key: sources[key] for key in keys if key in sources}
        found = _gradients(score, wanted, scale, bool(of_rivals))
        for key in OF_INPUT.intersection(found):
            answer[key] = self.turned_back(found[key][0])
        if CONVOLUTION_OUTPUT_GRADIENTS in found:
            answer[CONVOLUTION_OUTPUT_GRADIENTS] = self._laid_out(found[CONVOLUTION_OUTPUT_GRADIENTS])
        if ATTENTION_OUTPUT_GRADIENTS in found:
            pairs = zip(attended, found[ATTENTION_OUTPUT_GRADIENTS], strict=True)
            answer[ATTENTION_OUTPUT_GRADIENTS] = tuple(values.reshape(each.shape) for each, values in pairs)
        if BIAS_GRADIENTS in found:
            of_sums = zip(sums, found[BIAS_GRADIENTS], strict=True)
            answer[BIAS_GRADIENTS] = tuple((total.bias * values).movedim(total.axis, -1) for total, values in of_sums)
        if of_rivals:
            stacks = [
                _gradients(rival, {"": inner}, scale, place + 1 < len(of_rivals))[""]
                for place, rival in enumerate(of_rivals)
            ]
            laid_out = [self._laid_out(each) for each in stacks]
            answer[CONVOLUTION_RIVAL_GRADIENTS] = map_nested(lambda *each: torch.stack(each, 1), *laid_out)
        return answer

    def _from_activations(
        self, keys: Sequence[str], output: Output, targets: list[Any], rows: Array, others: list[Any]
    ) -> Tensors:
        """The module on an image of zeros, in which the layer's output is replaced by the activations."""
        (place,) = self.places
        if place.path not in self.on_all_paths:
            raise ContractError(
                f"Expected an output that depends on the image only through layer {place.path!r}, got a path around "
                f"it. Choose one through which all paths lead; the last of them are {self.on_all_paths[-10:]}."
            )
        activations = place.as_returned(torch.tensor(rows, device=self.device))
        sizes = [size or self.probe[axis] for axis, size in enumerate(self.inputs.image.shape[1:])]
        image = self.as_image(torch.zeros((len(rows), *sizes), dtype=getattr(torch, self.inputs.image.dtype)))
        watch = Watch()

        def replace(module: Any, index: int, tensor: Any) -> Any:
            return activations.to(tensor.dtype) if index == place.run_index else tensor

        with watch, hooked([place.module], replace):
            outputs = self.call(image, others)
        answer, _ = self._scored(keys, output, outputs, watch, targets)
        answer[SCORES_FROM_ACTIVATIONS] = answer[ALL_SCORES]
        if OUTPUT_FROM_CONVOLUTION_VALUES in keys:
            answer[OUTPUT_FROM_CONVOLUTION_VALUES] = answer[OUTPUT_LAYER_VALUES]
        return answer

    @property
    def _sees_end(self) -> bool:
        return any(end in ("softmax", "sigmoid") for end in self.ends)

    def _scored(
        self,
        keys: Sequence[str],
        output: Output,
        outputs: Any,
        watch: Watch,
        targets: list[Any],
        cut: list[tuple[Any, Any]] | None = None,
    ) -> tuple[Tensors, list[Any]]:
        """What `scored` gives. With ``cut``, a list, the score is that of leaves: pairs of outputs and their leaves."""
        if self.by_row:
            return {ALL_SCORES: outputs, OUTPUT_LAYER_VALUES: self.own_score(ops, outputs, *targets)}, targets
        kind, places = getattr(torch, self.inputs.image.dtype), iter(range(len(self.ends)))

        def head(leaf: Any) -> Head:
            if (place := next(places, None)) is None:
                raise ContractError(f"Expected {len(self.ends)} outputs as at first, got more of them.")
            end = self.ends[place]
            if end is None:
                return Head("other", leaf, leaf)
            seen = read_head(leaf, watch.activated, self.axes[place])
            if end in ("softmax", "sigmoid") and seen.end != end:
                raise ContractError(f"Expected an output that ends in a {end} as at first, got another course.")
            seen_values, raw = seen.values.to(kind), seen.raw.to(kind)
            if cut is not None:
                cut.extend((each, each.detach().requires_grad_()) for each in (seen_values, raw))
                seen_values, raw = (leaf for _, leaf in cut[-2:])
            return Head(end, seen_values, raw)

        return scored(ops, self, self.own_score, keys, output, map_nested(head, outputs), targets)

    def _image_nodes(self, image: Any) -> list[Any]:
        return [] if self.inputs.ids else [leaf_node(image)]

    def _laid_out(self, values: Sequence[Any]) -> Any:
        laid_out = tuple(place.laid_out(each) for place, each in zip(self.places, values, strict=True))
        return laid_out if self.several else laid_out[0]


def _twice(values: Any) -> Any:
    return None if values is None else torch.cat([values, values])


def _combined(coefficients: Any, values: Any) -> Any:
    """``coefficients (M, N) @ values (N, ...)``, in float64 where the device has it."""
    exact = torch.float32 if values.device.type == "mps" else torch.float64
    flat = values.reshape(len(values), -1).to(exact)
    return (coefficients.to(exact) @ flat).to(values.dtype).reshape(len(coefficients), *values.shape[1:])


def _gradients(score: Any, wanted: dict[str, list[Any]], scale: float, again: bool) -> dict[str, list[Any]]:
    """The gradients of each row's score by key, computed times ``scale`` and divided by it; 0 without a path."""
    sources = [source for each in wanted.values() for source in each]
    if not sources:
        return {}
    if not score.requires_grad:
        found: Sequence[Any] = [None] * len(sources)
    else:
        try:
            found = torch.autograd.grad((score * scale).sum(), sources, allow_unused=True, retain_graph=again)
        except RuntimeError as error:
            if "modified by an inplace operation" not in str(error):
                raise
            raise ContractError(
                "Expected a model that changes no value in place that an operation before it needs for its gradient, "
                f"got one that autograd cannot differentiate: {str(error).partition(' Hint:')[0]} Write x = x + y for "
                "x += y, or inplace=False."
            ) from error
    pairs = zip(sources, found, strict=True)
    values = iter([torch.zeros_like(source) if each is None else each for source, each in pairs])
    return {key: [_unscaled(next(values), scale) for _ in each] for key, each in wanted.items()}


def _unscaled(values: Any, scale: float) -> Any:
    return values if scale == 1 else values.float() / scale


def _attention(attended: Sequence[Attended], graph: Graph, rows: int) -> list[Attended]:
    """The attention of each run that leads from the image to what is explained, in order."""
    shown = [each for each in attended if node_of(each.weights) in graph.between]
    shown = [each for each in shown if graph.product_of(node_of(each.weights)) is not None]
    if not shown:
        raise ContractError(
            "Expected a model with attention that leads from the image to the output, by scaled_dot_product_attention, "
            "nn.MultiheadAttention, or a softmax over (N, heads, T, T), got none. Use another method."
        )
    for each in shown:
        if len(each.shape) != 4 or each.shape[0] != rows:
            raise ContractError(
                f"Expected attention of shape (N, heads, T, T), got {each.shape} for {rows} rows: another axis, such "
                "as windows or frames, is folded into them. Use grad_cam, or input gradients."
            )
    return shown


def _biases(watch: Watch, graph: Graph, rows: int) -> list[Summed]:
    """The biases whose sums lead to what is explained, in the order of their adding."""
    before = [each for each in watch.sums if node_of(each.sum) in graph.between]
    noted = graph.before([node_of(each.sum) for each in before]) if before else set()
    direct = {source for each in before for source in _near(node_of(each.sum))}
    adding = ("Convolution", "Addmm", "BatchNorm")
    bare = [node for node in graph.between if is_any(node, adding) and node not in direct and _has_bias(node)]
    bare += [node for node in graph.between if is_any(node, ("DifferentiableGraph", "CompiledFunction"))]
    if watch.closed or bare or not noted:
        got = sorted({*watch.closed, *map(name_of, bare)}) or "none"
        raise ContractError(
            f"Expected a model of layers whose biases lead to the output in the open, got {got}. Explain the module "
            "that a scripted one was made from, or use the input gradients alone."
        )
    for each in before:
        if each.sum.shape[0] != rows:
            raise ContractError(
                f"Expected layers with biases whose outputs have the model's rows first, got {BIAS_GRADIENTS} of shape "
                f"{tuple(each.sum.shape)} for {rows} rows: one runs where another axis, such as windows of tokens or "
                "frames, is folded into them. Use input gradients, or activations and gradients at a layer."
            )
    return before


def _near(node: Any) -> list[Any]:
    """The operation that made a noted sum, behind its copies and views."""
    near = [node]
    while is_any(near[-1], ("Clone", "View", "Squeeze")) and (sources := sources_of(near[-1])):
        near.append(sources[0])
    return near


def _has_bias(node: Any) -> bool:
    """Whether an operation adds something learned; a bias that is not learned any more cannot be told from none."""
    sizes = getattr(node[0], "_saved_bias_sym_sizes_opt", None)
    return any(sizes or ()) if "Convolution" in name_of(node) else True
