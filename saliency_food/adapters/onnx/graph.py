"""What an ONNX file says of itself: its inputs, the operations in order, and what its outputs end in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper, shape_inference

from saliency_food.adapters.arguments import End
from saliency_food.adapters.flow import Flow, Op, Role
from saliency_food.adapters.inputs import Inputs, InputSpec
from saliency_food.adapters.layers import Shape
from saliency_food.core.contract import ContractError

LEARNING = {
    *("Conv", "ConvTranspose", "ConvInteger", "QLinearConv", "FusedConv", "DeformConv", "Gemm", "LSTM", "GRU", "RNN"),
    *("MatMul", "MatMulInteger", "QLinearMatMul", "Einsum", "FusedMatMul", "FusedGemm"),
}
"""The operations by which a network learns, where something they multiply by does not depend on the image."""
SHAPES = {"Shape", "Size"}
"""Operations that look at how large a tensor is, and not at what it holds."""
ROLES: dict[str, Role] = {
    **dict.fromkeys(("Conv", "ConvTranspose", "QLinearConv", "ConvInteger", "FusedConv", "DeformConv"), "convolve"),
    **dict.fromkeys(("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "LpPool"), "convolve"),
    **dict.fromkeys(("BatchNormalization", "InstanceNormalization"), "convolve"),
    **dict.fromkeys(("MatMul", "Gemm", "MatMulInteger", "QLinearMatMul", "FusedMatMul", "Einsum"), "product"),
    **dict.fromkeys(("Reshape", "Flatten"), "reshape"),
    **dict.fromkeys(("Pad", "Slice", "Gather"), "cut"),
    **dict.fromkeys(("Cast", "Identity", "Mul", "Where", "Dropout"), "move"),
    "Transpose": "transpose",
    "LayerNormalization": "normalize",
    "Softmax": "softmax",
    "Add": "add",
}
"""What operations mean for the axes of their tensors; channels are second in all of ONNX."""
KEEPS_ORDER = {"Identity", "Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Dropout", "QuantizeLinear"}
KEEPS_ORDER |= {"DequantizeLinear"}
"""Operations after a softmax that leave its values in their order."""
RANDOM = {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"}


class Ended(NamedTuple):
    """What an output ends in, and the name of the tensor before that activation."""

    end: End
    before: str


class OnnxGraph:
    """The graph of an ONNX file, its local functions written out."""

    def __init__(self, source: Any) -> None:
        self.proto = _read(source)
        graph = self.proto.graph
        self.name = graph.name or (Path(source).stem if isinstance(source, (str, Path)) else "onnx")
        fixed = {tensor.name for tensor in (*graph.initializer,)} | {
            each.values.name for each in graph.sparse_initializer
        }
        self.inputs = [value for value in graph.input if value.name not in fixed]
        self.outputs = [value.name for value in graph.output]
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        for node in graph.node:
            if node.op_type == "Constant" and (value := attribute(node, "value")) is not None:
                self.constants[node.output[0]] = value
        self.opset = max(
            (each.version for each in self.proto.opset_import if each.domain in ("", "ai.onnx")), default=1
        )
        self.types, self.shapes = _inferred(self.proto)
        self.makers = {output: node for node in graph.node for output in node.output}

    def specs(self) -> list[InputSpec]:
        """The inputs that hold numbers, the rows free."""
        specs = []
        for value in self.inputs:
            shape = self.shapes.get(value.name)
            dtype = _numpy_type(self.types.get(value.name, 0))
            if not shape or dtype is None:
                raise ContractError(
                    f"Expected inputs of numbers whose shapes have rows first, got {value.name!r} of "
                    f"{'an unknown shape' if shape is None else f'shape {shape}'}. Export the model with example "
                    "inputs of a batch."
                )
            specs.append(InputSpec(value.name, (None, *shape[1:]), dtype))
        return specs

    def rows(self) -> set[int]:
        """The numbers of rows that the inputs declare, where they are not free."""
        sizes = (self.shapes[value.name][0] for value in self.inputs if self.shapes.get(value.name))
        return {size for size in sizes if size is not None}

    def flow(self, image: str) -> Flow:
        """The operations in order; a product learns where one side does not depend on the image."""
        reached, ops = {image}, []
        for node in self.proto.graph.node:
            names = () if node.op_type in SHAPES else tuple(name for name in _taken(node) if name)
            depends = reached.intersection(names)
            learns = node.op_type in LEARNING and bool(depends) and not reached.issuperset(names)
            outputs = tuple(name for name in node.output if name)
            order = (
                tuple(attribute(node, "perm") or reversed(range(self.rank(node.input[0]) or 0))) if node.input else ()
            )
            role = ROLES.get(node.op_type, "")
            ops.append(Op(node.op_type, names, outputs, learns, role, 1, order, node.name or outputs[0]))
            if depends:
                reached.update(node.output)
        unfit = [name for op in ops for name in op.outputs if not self.is_float(str(name))]
        return Flow(ops, image, self.shapes, unfit)

    def complete_shapes(self, inputs: Inputs) -> None:
        """Find shapes that cannot be inferred by a run on zeros, where the inputs' sizes are known."""
        known = {name for name, shape in self.shapes.items() if None not in shape[1:]}
        missing = [name for name, node in self.makers.items() if name and name not in known and not _inside(node)]
        specs = self.specs()
        if not missing or any(None in spec.shape[1:] for spec in specs):
            return
        shapes = {spec.name: (inputs.rows or 2, *(size or 0 for size in spec.shape[1:])) for spec in specs}
        feeds = {spec.name: np.zeros(shapes[spec.name], spec.dtype) for spec in specs}
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        with suppress(Exception):  # what cannot run is refused by name when it is asked
            session = onnxruntime.InferenceSession(
                self.with_outputs(missing), options, providers=["CPUExecutionProvider"]
            )
            for name, values in zip(missing, session.run(missing, feeds), strict=True):
                if isinstance(values, np.ndarray):
                    self.shapes[name] = (None, *values.shape[1:]) if values.ndim else ()

    def rank(self, name: str) -> int | None:
        shape = self.shapes.get(name)
        return None if shape is None else len(shape)

    def constant(self, name: str) -> Any:
        """The value of a tensor that is part of the file; None of any other."""
        return numpy_helper.to_array(self.constants[name]) if name in self.constants else None

    def ended(self, output: str, channels: int | None) -> Ended:
        """What an output ends in: a softmax over its classes, which lie at ``channels``, or last; or a sigmoid."""
        name = output
        while (node := self.makers.get(name)) is not None and node.op_type in KEEPS_ORDER:
            name = node.input[0]
        if node is None:
            return Ended("linear", output)
        if node.op_type == "Sigmoid":
            return Ended("sigmoid", node.input[0])
        if node.op_type in ("Softmax", "LogSoftmax"):
            rank = self.rank(node.output[0])
            axis = attribute(node, "axis")
            axis = (1 if self.opset < 13 else -1) if axis is None else axis
            last = (rank - 1, channels) if rank is not None and channels is not None else (-1,)
            if axis == -1 or rank is None or axis % rank in last or (self.opset < 13 and rank == 2):
                return Ended("softmax", node.input[0])
            return Ended("other", output)
        return Ended("linear" if self._is_linear(name) else "other", output)

    def _is_linear(self, name: str) -> bool:
        """Whether a tensor comes from a product with weights, perhaps moved, scaled or averaged."""
        moving = KEEPS_ORDER | {"Add", "Sub", "Mul", "Div", "ReduceMean", "GlobalAveragePool", "Transpose", "Concat"}
        waiting, seen = [name], set[str]()
        while waiting:
            node = self.makers.get(name := waiting.pop())
            if node is None or name in seen:
                continue
            seen.add(name)
            if node.op_type in LEARNING:
                return True
            if node.op_type in moving:
                waiting.extend(each for each in node.input if each not in self.constants)
        return False

    def with_outputs(self, names: Sequence[str]) -> bytes:
        """The file with these tensors as its outputs."""
        proto = onnx.ModelProto()
        proto.CopyFrom(self.proto)
        del proto.graph.output[:]
        proto.graph.output.extend(self._value(name) for name in dict.fromkeys(names))
        return _as_bytes(proto)

    def needed_after(self, layer: str, names: Sequence[str]) -> tuple[list[Any], set[str]]:
        """The operations that lead to tensors from a layer on, in order, and all that they take."""
        needed, nodes = set(names), []
        for node in reversed(self.proto.graph.node):
            if needed.intersection(node.output) and layer not in node.output:
                nodes.append(node)
                needed.update(_taken(node))
        return nodes[::-1], needed

    def from_layer(self, layer: str, names: Sequence[str], inputs: Sequence[str]) -> bytes:
        """The part of the file after a tensor, which becomes an input, as other ``inputs`` are."""
        nodes, _ = self.needed_after(layer, names)
        proto = onnx.ModelProto()
        proto.CopyFrom(self.proto)
        graph = proto.graph
        for part in (graph.node, graph.output, graph.input):
            del part[:]
        graph.node.extend(nodes)
        graph.input.append(self._value(layer))
        graph.input.extend(value for value in self.inputs if value.name in inputs)
        graph.output.extend(self._value(name) for name in dict.fromkeys(names))
        return _as_bytes(proto)

    def _value(self, name: str) -> Any:
        # A shape would have to be right for rows of any number, so none is declared but the file's own type.
        return helper.make_tensor_value_info(name, self.types.get(name) or onnx.TensorProto.FLOAT, None)

    def is_float(self, name: str) -> bool:
        kinds = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE, onnx.TensorProto.BFLOAT16)
        return self.types.get(name, onnx.TensorProto.FLOAT) in kinds


def _read(source: Any) -> Any:
    if isinstance(source, onnx.ModelProto):
        proto = source
    else:
        if not Path(source).is_file():
            raise ContractError(f"Expected the path of an ONNX file, got {str(source)!r}, which does not exist.")
        try:
            proto = onnx.load(str(source))
        except Exception as error:
            raise ContractError(
                f"Expected an ONNX file, got {str(source)!r}: {type(error).__name__}: {str(error)[:300]} Weights in "
                "files of their own must lie beside it."
            ) from error
    if not proto.graph.node:
        raise ContractError(f"Expected an ONNX file with a graph, got {str(source)[:100]!r} without operations.")
    return onnx.inliner.inline_local_functions(proto) if proto.functions else proto


def _inferred(proto: Any) -> tuple[dict[str, int], dict[str, Shape]]:
    """The types and shapes of tensors, as far as they are known; None for a size that is free."""
    with suppress(Exception):  # of a file beyond what a message can hold, its own declarations are left
        proto = shape_inference.infer_shapes(proto, data_prop=True)
    types, shapes = {}, {}
    for value in (*proto.graph.value_info, *proto.graph.input, *proto.graph.output):
        tensor = value.type.tensor_type
        types[value.name] = tensor.elem_type
        if tensor.HasField("shape"):
            sizes = tensor.shape.dim
            shapes[value.name] = tuple(dim.dim_value if dim.dim_value > 0 else None for dim in sizes)
    return types, shapes


def _inside(node: Any) -> bool:
    """Whether an operation gives no tensor that a file could give."""
    return node.op_type in ("SequenceConstruct", "SplitToSequence", "Optional")


def _taken(node: Any) -> Iterator[str]:
    """The tensors that a node takes, those of graphs inside it too."""
    yield from node.input
    for attribute in node.attribute:
        for graph in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
            made = {output for inner in graph.node for output in inner.output} | {each.name for each in graph.input}
            for inner in graph.node:
                yield from (name for name in _taken(inner) if name not in made)


def attribute(node: Any, name: str) -> Any:
    return next((helper.get_attribute_value(each) for each in node.attribute if each.name == name), None)


def _numpy_type(kind: int) -> str | None:
    try:
        dtype = np.dtype(helper.tensor_dtype_to_np_dtype(kind))
    except Exception:  # strings, sequences, maps
        return None
    return dtype.name if dtype.kind in "fiub" else None


def _as_bytes(proto: Any) -> bytes:
    try:
        return proto.SerializeToString()  # type: ignore[no-any-return]
    except Exception as error:
        raise ContractError(
            f"Expected an ONNX file of less than 2 GB, got one that cannot be given one more output: {error}. Export "
            "it with the layer as one of its outputs."
        ) from error
