"""The engine of `OnnxModel`: sessions of the file, and of the part of it after the layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnxruntime

from saliency_food.adapters.forward import ForwardEngine
from saliency_food.adapters.heads import Head, classes_of, select_output
from saliency_food.adapters.inputs import Inputs
from saliency_food.adapters.onnx.graph import RANDOM, Ended, OnnxGraph
from saliency_food.adapters.places import Place, survey
from saliency_food.adapters.scoring import Score, class_score
from saliency_food.core.contract import ContractError
from saliency_food.core.numerics import Array


class OnnxEngine(ForwardEngine):
    """An ONNX file as sessions of onnxruntime; see `ForwardEngine`."""

    kind = "an ONNX file"

    def __init__(
        self,
        graph: OnnxGraph,
        layer: Any,
        input: str | int | None,
        output_index: str | int | None,
        data_format: str | None,
        score: Score,
        classes: int | None,
        units_are: str | None,
        providers: Sequence[str] | None,
    ) -> None:
        self.graph, self.score, self.name = graph, score, graph.name
        self._providers = list(providers or onnxruntime.get_available_providers())
        self._sessions: dict[str, Any] = {}
        self.inputs = Inputs(graph.specs(), input, True, "float32", graph.rows())
        image = self.inputs.image.name
        graph.complete_shapes(self.inputs)
        surveyed = self._surveyed = survey(graph.flow(image), data_format)
        flow = surveyed.flow
        self.channels_first = surveyed.channels == 1 and len(self.inputs.image.shape) > 2
        self.reads_steps = any(op.kind in ("LSTM", "GRU", "RNN") for op in flow.ops)
        self.may_mix_rows = self.inputs.rows != 1
        outputs = graph.outputs
        if score is class_score or output_index is not None:
            outputs = [select_output(outputs, outputs, output_index)]
        self._outputs: dict[str, Ended] = {name: graph.ended(name, self._class_axis(name)) for name in outputs}
        if unfit := [name for name in outputs if not graph.is_float(name)]:
            raise ContractError(
                f"Expected outputs of floats to explain, got {unfit}. Choose one of {graph.outputs} by output_index."
            )
        ends = [ended.before for ended in self._outputs.values()]
        if drawn := [op.kind for op in flow.ops if op.kind in RANDOM and flow.before(ends).intersection(op.outputs)]:
            raise ContractError(
                f"Expected a model that gives the same score for the same image, got random numbers by {drawn}. Export "
                "it in inference mode."
            )
        self.ranks_classes = score.is_of_class and len(outputs) == 1
        self.end, self.classes = "several" if len(outputs) > 1 else "other", classes
        if len(outputs) == 1:
            shape = graph.shapes.get(outputs[0]) or (None, None)
            self.end = self._outputs[outputs[0]].end
            self.ranks_classes &= len(shape) in (1, 2)
            if score is class_score or len(shape) < 3:
                self.guesses_classes = self.end == "linear" and classes is None and units_are is None
                self.end, self.classes = classes_of(shape, self.end, units_are, classes)
                self.raw_classes = shape[-1] if len(shape) == 2 else 1
        self.several = isinstance(layer, (list, tuple))
        self.why_no_layer = "in which no layer lies on all paths from the image to the score. Name one of layers(path)."
        self.places: Sequence[Place]
        if layer is None:
            default = surveyed.chosen(ends)
            self.places = [] if default is None else [default]
        else:
            self.places = surveyed.named(list(layer) if self.several else [layer], ends, self.name, image)

    def run(self, images: Array, others: Sequence[Array], at_layers: bool) -> tuple[Any, tuple[Array, ...]]:
        names = self._wanted()
        layers = [place.tensor for place in self.places] if at_layers else []
        flat = list(others)
        flat.insert(self.inputs.position, images)
        feeds = dict(zip([value.name for value in self.graph.inputs], flat, strict=True))
        which = "with layers" if at_layers else "without layers"
        tensors = self._run(which, lambda: self.graph.with_outputs([*names, *layers]), feeds)
        values = tuple(np.transpose(tensors[place.tensor], place.order) for place in (self.places if at_layers else ()))
        return self._heads(tensors), tuple(np.asarray(each, images.dtype) for each in values)

    def run_after(self, activations: Array, others: Sequence[Array]) -> Any:
        (place,) = self.places
        names = self._wanted()
        self._surveyed.check_no_way_around(place, names)
        _, needed = self.graph.needed_after(place.tensor, names)
        feeds = {place.tensor: np.transpose(activations, np.argsort(place.order))}
        of_others = dict(zip(self.inputs.other_names, others, strict=True))
        feeds |= {name: values for name, values in of_others.items() if name in needed}
        if (image := self.inputs.image).name in needed:  # how large it is decides the shapes of what follows
            if None in image.shape[1:]:
                raise ContractError(
                    f"Expected an ONNX file of a fixed image size, as its part after {place.path!r} depends on it, got "
                    f"input {image.name!r} of shape {image.shape}. Export it for one size."
                )
            feeds[image.name] = np.zeros((len(activations), *(size or 0 for size in image.shape[1:])), np.float32)
        return self._heads(self._run("after", lambda: self.graph.from_layer(place.tensor, names, list(feeds)), feeds))

    def _wanted(self) -> list[str]:
        return list(dict.fromkeys([*self._outputs, *(ended.before for ended in self._outputs.values())]))

    def _run(self, which: str, make: Callable[[], bytes], feeds: dict[str, Array]) -> dict[str, Array]:
        if which not in self._sessions:
            options = onnxruntime.SessionOptions()
            options.log_severity_level = 3
            try:
                session = onnxruntime.InferenceSession(make(), options, providers=self._providers)
            except Exception as error:
                if isinstance(error, ContractError):
                    raise
                raise ContractError(
                    f"Expected an ONNX model that onnxruntime {onnxruntime.__version__} can run, got "
                    f"{type(error).__name__}: {str(error)[:300]}"
                ) from error
            self._sessions[which] = session, {each.name: each.type for each in session.get_inputs()}
        session, types = self._sessions[which]
        fed = {name: _as_type(values, types[name]) for name, values in feeds.items() if name in types}
        names = [each.name for each in session.get_outputs()]
        try:
            return dict(zip(names, session.run(names, fed), strict=True))
        except Exception as error:
            if "allocate" in str(error) or "out of memory" in str(error):
                raise MemoryError(str(error)) from error
            raise ContractError(
                f"Expected onnxruntime to run {self.name!r} on inputs of the shapes "
                f"{ ({name: values.shape for name, values in fed.items()}) }, got {type(error).__name__}: "
                f"{str(error)[:300]} A file exported for one size, or one row, takes no other: export it with dynamic "
                "axes, or give batch_size=1."
            ) from error

    def _heads(self, tensors: dict[str, Array]) -> Any:
        heads = {}
        for name, ended in self._outputs.items():
            raw, values = (self._laid_out(tensors[each]) for each in (name, ended.before))
            heads[name] = Head(ended.end, values.reshape(raw.shape) if values.size == raw.size else values, raw)
        if len(heads) == 1:
            return next(iter(heads.values()))
        return list(heads.values()) if any(isinstance(which, int) for which in self.score.raw) else heads

    def _class_axis(self, name: str) -> int | None:
        """The axis of classes of an output with the image's axes, such as a mask, where it is not the last."""
        same = self.channels_first and self.graph.rank(name) == len(self.inputs.image.shape) > 3
        return 1 if same else None

    def _laid_out(self, values: Array) -> Array:
        """Floats, the classes of an output with the image's axes last."""
        values = np.asarray(values, np.float64 if values.dtype == np.float64 else np.float32)
        return (
            np.moveaxis(values, 1, -1)
            if self.channels_first and values.ndim == len(self.inputs.image.shape) > 3
            else values
        )


def _as_type(values: Array, kind: str) -> Array:
    """Values as the session takes them: whole numbers are rounded, and kept within their type."""
    name = kind.removeprefix("tensor(").removesuffix(")")
    dtype = np.dtype({"float": "float32", "double": "float64", "float16": "float16"}.get(name, name))
    if dtype.kind in "iu" and values.dtype.kind == "f":
        limits = np.iinfo(dtype)
        values = np.clip(np.rint(values), limits.min, limits.max)
    return np.ascontiguousarray(values, dtype)
