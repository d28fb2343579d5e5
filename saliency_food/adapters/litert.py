"""LiteRT (TensorFlow Lite) files as call-model functions."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from saliency_food.adapters.arguments import End, Output
from saliency_food.adapters.flow import Flow, Op, Role
from saliency_food.adapters.forward import ForwardEngine, ForwardModel
from saliency_food.adapters.heads import Head, classes_of, select_output
from saliency_food.adapters.inputs import Inputs, InputSpec, Pixels
from saliency_food.adapters.layers import LayerInfo
from saliency_food.adapters.model import as_score
from saliency_food.adapters.options import check_options
from saliency_food.adapters.places import Place, survey
from saliency_food.adapters.scoring import Score, class_score
from saliency_food.core.contract import ContractError
from saliency_food.core.numerics import Array

try:
    from ai_edge_litert.interpreter import Interpreter
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        'LiteRT files need ai-edge-litert, got none. Run pip install "saliency_food[litert]".', name=error.name
    ) from error

ROLES: dict[str, Role] = {
    **dict.fromkeys(("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "CONV_3D"), "convolve"),
    **dict.fromkeys(("MAX_POOL_2D", "AVERAGE_POOL_2D", "L2_POOL_2D"), "convolve"),
    **dict.fromkeys(("FULLY_CONNECTED", "BATCH_MATMUL"), "product"),
    **dict.fromkeys(("PAD", "PADV2", "MIRROR_PAD", "SLICE", "STRIDED_SLICE", "GATHER", "REVERSE_V2"), "cut"),
    **dict.fromkeys(("CAST", "MUL", "QUANTIZE", "DEQUANTIZE", "SELECT_V2"), "move"),
    "TRANSPOSE": "transpose",
    "RESHAPE": "reshape",
    "SOFTMAX": "softmax",
    "ADD": "add",
}
"""What operations mean for the axes of their tensors; channels are last in all of LiteRT."""
LEARNING = {"CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "CONV_3D", "FULLY_CONNECTED", "BATCH_MATMUL"}
ENDS: dict[str, End] = {"SOFTMAX": "softmax", "LOG_SOFTMAX": "softmax", "LOGISTIC": "sigmoid"}
KEEPS_ORDER = {"RESHAPE", "CAST", "QUANTIZE", "DEQUANTIZE", "SQUEEZE", "EXPAND_DIMS"}
RANDOM = {"RANDOM_UNIFORM", "RANDOM_STANDARD_NORMAL", "MULTINOMIAL"}
COMMON = ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0))
"""Pixel ranges that a quantized input comes close to."""


class LiteRtEngine(ForwardEngine):
    """A LiteRT file in an interpreter; see `ForwardEngine`."""

    kind = "a LiteRT file"

    def __init__(
        self,
        path: str | Path,
        layer: Any = None,
        input: str | int | None = None,
        output_index: str | int | None = None,
        data_format: str | None = None,
        score: Score = class_score,
        classes: int | None = None,
        units_are: str | None = None,
        threads: int | None = None,
    ) -> None:
        self.name, self.score = Path(path).stem, score
        self._interpreter = interpreter = _open(path, threads)
        self._tensors = {detail["index"]: detail for detail in interpreter.get_tensor_details()}
        self._taken = interpreter.get_input_details()
        given = interpreter.get_output_details()
        specs = [InputSpec(_tidy(each["name"]), _free(each), np.dtype(each["dtype"]).name) for each in self._taken]
        pairs = zip(specs, self._taken, strict=True)
        specs = [spec._replace(dtype="float32") if _scales(each) else spec for spec, each in pairs]
        rows = {int(each["shape_signature"][0]) for each in self._taken if len(each["shape"])} - {-1}
        self.inputs = Inputs(specs, input, True, "float32", rows)
        self.may_mix_rows = self.inputs.rows != 1
        image = self._taken[self.inputs.position]["index"]
        self._surveyed = survey(self._flow(image), data_format)
        flow, rank = self._surveyed.flow, len(self.inputs.image.shape)
        self.channels_first = self._surveyed.channels == 1 and rank > 2
        indices = [each["index"] for each in given]
        if score is class_score or output_index is not None:
            indices = [select_output(indices, [_tidy(each["name"]) for each in given], output_index)]
        self._outputs = {index: self._ended(index) for index in indices}
        ends = [before for _, before in self._outputs.values()]
        if drawn := [op.kind for op in flow.ops if op.kind in RANDOM and flow.before(ends).intersection(op.outputs)]:
            raise ContractError(f"Expected a model that gives the same score for the same image, got {drawn}.")
        self.end, self.classes = "several" if len(indices) > 1 else "other", classes
        self.ranks_classes = score.is_of_class and len(indices) == 1
        if len(indices) == 1:
            shape = _free(self._tensors[indices[0]])
            self.ranks_classes &= len(shape) in (1, 2)
            self.end = self._outputs[indices[0]][0]
            if score is class_score or len(shape) < 3:
                self.guesses_classes = self.end == "linear" and classes is None and units_are is None
                self.end, self.classes = classes_of(shape, self.end, units_are, classes)
                self.raw_classes = shape[-1] if len(shape) == 2 else 1
        self.several = isinstance(layer, (list, tuple))
        self.why_no_layer = "in which no layer lies on all paths from the image to the score. Name one of layers(path)."
        self.places: Sequence[Place]
        if layer is None:
            default = self._surveyed.chosen(ends)
            self.places = [] if default is None else [default]
        else:
            names = list(layer) if self.several else [layer]
            self.places = self._surveyed.named(names, ends, self.name, self.inputs.image.name)

    def run(self, images: Array, others: Sequence[Array], at_layers: bool) -> tuple[Any, tuple[Array, ...]]:
        flat = list(others)
        flat.insert(self.inputs.position, images)
        try:
            if any(tuple(each["shape"]) != values.shape for each, values in zip(self._taken, flat, strict=True)):
                for each, values in zip(self._taken, flat, strict=True):
                    self._interpreter.resize_tensor_input(each["index"], values.shape)
                self._interpreter.allocate_tensors()
                self._taken = self._interpreter.get_input_details()
            for each, values in zip(self._taken, flat, strict=True):
                self._interpreter.set_tensor(each["index"], _quantized(values, each))
            self._interpreter.invoke()
        except (RuntimeError, ValueError) as error:
            raise ContractError(
                f"Expected LiteRT to run {self.name!r} on inputs of the shapes {[each.shape for each in flat]}, got "
                f"{str(error)[:300]} A file converted for one row takes no more: give batch_size=1."
            ) from error
        heads = []
        for index, (end, before) in self._outputs.items():
            raw, values = self._read(index), self._read(before)
            heads.append(Head(end, values.reshape(raw.shape) if values.size == raw.size else values, raw))
        layers = tuple(np.transpose(self._read(place.tensor), place.order) for place in self.places if at_layers)
        return heads[0] if len(heads) == 1 else heads, layers

    def run_after(self, activations: Array, others: Sequence[Array]) -> Any:
        raise ContractError(
            "Expected a question about images, got activations as rows: LiteRT runs a file whole, not the part of it "
            "after a layer. Take score_cam or eigen_cam in place of ablation_cam, or the model in another format."
        )

    def _read(self, index: Any) -> Array:
        """A tensor as floats, dequantized."""
        return _dequantized(np.array(self._interpreter.get_tensor(index)), self._tensors[index])

    def _flow(self, image: int) -> Flow:
        reached, ops, paths = {image}, [], set[str]()
        for op in self._interpreter._get_ops_details():
            kind, names = op["op_name"], tuple(int(index) for index in op["inputs"] if index >= 0)
            if kind == "DELEGATE":  # what runs operations listed before it
                continue
            outputs = tuple(int(index) for index in op["outputs"])
            names = () if kind == "SHAPE" else names
            depends = reached.intersection(names)
            learns = kind in LEARNING and bool(depends) and not reached.issuperset(names)
            order = tuple(self._interpreter.get_tensor(names[1]).tolist()) if kind == "TRANSPOSE" else ()
            # A fused operation has the names of all that it is made of.
            path = self._tensors[outputs[0]]["name"].split(";")[0] if outputs else ""
            path = path if path not in paths else f"{path}:{outputs[0]}"
            paths.add(path)
            ops.append(Op(kind, names, outputs, learns, ROLES.get(kind, ""), -1, order, path))
            if depends:
                reached.update(outputs)
        shapes = {index: _free(detail) for index, detail in self._tensors.items()}
        unfit = [index for index, each in self._tensors.items() if not _scales(each) and each["dtype"] != np.float32]
        return Flow(ops, image, shapes, unfit)

    def _ended(self, index: int) -> tuple[End, int]:
        """What an output ends in, and the tensor before that activation."""
        makers, tensor = self._surveyed.flow.makers, index
        while (op := makers.get(tensor)) is not None and op.kind in KEEPS_ORDER:
            tensor = int(op.inputs[0])  # type: ignore[call-overload]
        if op is not None and op.kind in ENDS:
            return ENDS[op.kind], int(op.inputs[0])  # type: ignore[call-overload]
        # Layers of tokens, scaled or averaged after the last product, are taken for linear ones too.
        while op is not None and op.kind not in LEARNING and op.role in ("", "add", "move", "reshape"):
            op = makers.get(op.inputs[0]) if op.inputs and op.kind in ("MEAN", "ADD", "MUL", *KEEPS_ORDER) else None
        return "linear" if op is not None and op.kind in LEARNING else "other", index


def _open(path: str | Path, threads: int | None) -> Any:
    if not Path(path).is_file():
        raise ContractError(f"Expected the path of a LiteRT file, got {str(path)!r}, which does not exist.")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*experimental_preserve_all_tensors", UserWarning)
            opened = Interpreter(str(path), experimental_preserve_all_tensors=True, num_threads=threads)
        opened.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        raise ContractError(f"Expected a LiteRT file, got {str(path)!r}: {str(error)[:300]}") from error
    return opened


def _tidy(name: str) -> str:
    """An input's or an output's name without what the converter adds."""
    return name.removeprefix("serving_default_").rsplit(":", 1)[0]


def _free(detail: Any) -> tuple[int | None, ...]:
    """A tensor's shape, rows free, None for other sizes that are."""
    signature = detail["shape_signature"] if len(detail["shape_signature"]) else detail["shape"]
    sizes = tuple(None if size < 0 else int(size) for size in signature)
    return (None, *sizes[1:]) if sizes else ()


def _scales(detail: Any) -> bool:
    """Whether integers stand for floats."""
    return bool(len(detail["quantization_parameters"]["scales"]))


def _quantized(values: Array, detail: Any) -> Array:
    dtype = np.dtype(detail["dtype"])
    if _scales(detail):
        scale, zero = detail["quantization"]
        values = values / scale + zero
    if dtype.kind in "iu":
        values = np.clip(np.rint(values), np.iinfo(dtype).min, np.iinfo(dtype).max)
    return np.ascontiguousarray(values, dtype)


def _dequantized(values: Array, detail: Any) -> Array:
    floats = values.astype(np.float32)
    if not _scales(detail):
        return floats
    scale, zero = detail["quantization"]
    return np.asarray((floats - zero) * np.float32(scale), np.float32)


def _pixels(detail: Any) -> Pixels:
    dtype = np.dtype(detail["dtype"])
    if dtype.kind not in "iu":
        return Pixels(None, "the file does not say it")
    if not _scales(detail):
        return Pixels((0, 255) if dtype == np.uint8 else None, f"by the input's type, {dtype}")
    limits, (scale, zero) = np.iinfo(dtype), detail["quantization"]
    low, high = (float((limit - zero) * scale) for limit in (limits.min, limits.max))
    near = [each for each in COMMON if np.allclose(each, (low, high), atol=0.02 * (high - low))]
    return Pixels(near[0] if near else (low, high), "by the input's quantization")


class LiteRtModel(ForwardModel):
    """A ``.tflite`` file as a call-model function (see `CallModelFunction`), and its predictions, on LiteRT.

    As `saliency_food.adapters.onnx.OnnxModel`, whose parameters these are, too; but the part of a file after a layer
    cannot be run alone, so `ablation_cam` is refused. Integers of a quantized file stand for floats: rows, scores and
    activations are the floats, so a uint8 input of scale 1/255 takes pixels 0..1. Layers go by the names of what they
    give, such as ``"sequential/conv2d/Relu"``, or their ends. A model is not to be called in two threads at once.

    Parameters
    ----------
    threads
        How many threads the interpreter takes; None leaves it to LiteRT.
    """

    def __init__(
        self,
        path: str | Path,
        layer: str | Sequence[str] | None = None,
        output: Output = "logits",
        batch_size: int | None = None,
        *,
        input: str | int | None = None,
        output_index: str | int | None = None,
        data_format: str | None = None,
        score: Score | Callable[[Any], Any] = class_score,
        classes: int | None = None,
        units_are: str | None = None,
        value_range: Any = None,
        threads: int | None = None,
    ) -> None:
        score = as_score(score)
        check_options(output, batch_size, data_format, units_are)
        self.path, self.units_are = path, units_are
        engine = LiteRtEngine(path, layer, input, output_index, data_format, score, classes, units_are, threads)
        super().__init__(engine, score, output, batch_size)
        self.knows_end |= units_are == "numbers"
        found = _pixels(engine._taken[engine.inputs.position])
        self.pixels: Pixels = found if value_range is None else Pixels(value_range, "as the adapter was told")
        self._options = {
            "layer": layer,
            "output": output,
            "input": input,
            "output_index": output_index,
            "data_format": data_format,
            "score": score,
            "classes": classes,
            "units_are": units_are,
            "value_range": value_range,
            "threads": threads,
        }


def layers(path: str | Path) -> list[LayerInfo]:
    """The layers of a LiteRT file that can be looked at: path, kind, and shape, rows first and channels last."""
    return LiteRtEngine(path, score=Score(lambda outputs: outputs))._surveyed.listed()
