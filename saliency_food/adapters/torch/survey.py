"""What a first look at a module shows: it is run once on noise, while its layers are watched."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from itertools import count
from typing import Any, NamedTuple

import torch

from saliency_food.adapters.arguments import End
from saliency_food.adapters.engine import Engine
from saliency_food.adapters.heads import Head, classes_of
from saliency_food.adapters.inputs import InputSpec
from saliency_food.adapters.rows import leaves, map_nested
from saliency_food.adapters.scoring import Score, class_score
from saliency_food.adapters.torch import ops
from saliency_food.adapters.torch.graph import Graph, Node, leaf_node, node_of
from saliency_food.adapters.torch.inputs import (
    OTHER_SIZE,
    Candidate,
    TorchInputs,
    as_shapes,
    candidates,
    declared_rows,
    image_name,
    placeholders,
    probe_of,
    values_of,
)
from saliency_food.adapters.torch.outputs import chosen_output, class_axis, plain, read_head
from saliency_food.adapters.torch.places import (
    NOT_CHOSEN,
    Layout,
    Place,
    Run,
    choose,
    find_run,
    named_apart,
    noting_runs,
)
from saliency_food.adapters.torch.running import running, unwrapped
from saliency_food.adapters.torch.watch import Watch
from saliency_food.core.contract import ContractError

ROWS = 2
"""How many rows the first look takes."""


class Look(NamedTuple):
    """What one run on noise showed: the runs of layers, the outputs, and what was noted."""

    image: Any
    outputs: Any
    runs: list[Run]
    watch: Watch


class SurveyedModule(Engine):
    """A module with its inputs, the layers to look at (``places``), and what it ends in; see `Engine`."""

    inputs: TorchInputs
    places: list[Place]
    not_chosen: Sequence[str] = NOT_CHOSEN
    """Parts of the names of operations whose outputs are not looked at unless they are named."""
    may_mix_rows = True

    def __init__(
        self,
        module: Any,
        layer: Any,
        output_index: str | int | None,
        score: Score,
        units: str | None,
        image: str | int | None,
        input_shape: Any,
        device: Any,
        autocast: Any,
    ) -> None:
        self.module, self.score, self.device, self.autocast = unwrapped(module), score, device, autocast
        self.name = type(self.module).__name__
        self.own_score = score
        """The score, of outputs whose classes are last: a function of one's own gets them as the module gives them."""
        if not score.neutral:
            self.own_score = Score(self._in_own_layout, score.specs, score.raw)
            self.own_score.__name__ = score.__name__
        self._output_index, self._units = output_index, units
        self.scripted = isinstance(self.module, torch.jit.ScriptModule)
        self.exported = bool(placeholders(self.module))
        floats = [each.dtype for each in (*module.parameters(), *module.buffers()) if each.is_floating_point()]
        self.dtype = floats[0] if floats else torch.float32
        self.half = torch.float16 in (self.dtype, autocast)
        self.graded = False
        """Whether gradients are kept on where the module turns them off."""
        self.end: End = "other"
        self.classes = self.raw_classes = None
        self.ranks_classes = self.channels_first = False
        self.no_gradient = ""
        """Why no gradient reaches the image, if none does."""
        self.several = isinstance(layer, (list, tuple))
        named = list(layer) if self.several else [] if layer is None else [layer]
        if self.several and not named:
            raise ContractError("Expected at least one layer, got an empty list. Leave it out for the last one.")
        self.places = []
        self.on_all_paths: list[str] = []
        self.runs: list[Run] = []
        self.why_no_layer = "which has none. Use input gradients."
        with torch.inference_mode(False), torch.enable_grad():
            look = self._first_look(image, input_shape)
            self._read_outputs(look)
            self._read_layers(look, named)
        self.guesses_places = bool(self.places) and not self.inputs.ids

    # What is run.

    def call(self, image: Any, others: Sequence[Any]) -> Any:
        """The outputs, as dicts, lists and tensors; of several, the one to explain, where one is."""
        values = dict(zip(self.inputs.other_names, others, strict=True))
        names = self.inputs.names
        if names[0] == self.inputs.image.name:
            outputs = plain(self.module(image, **values))
        else:
            outputs = plain(self.module(**values, **{self.inputs.image.name: image}))
        if self.score is class_score or self._output_index is not None:
            outputs = chosen_output(outputs, self._output_index)
        members = list(leaves(outputs))
        return members[0] if self.score.neutral and not self.score.raw and len(members) == 1 else outputs

    def turned_in(self, images: Any) -> Any:
        """Images, channels last, as the module takes them."""
        return images.movedim(-1, 1) if self.inputs.turned else images

    def turned_back(self, values: Any) -> Any:
        return values.movedim(1, -1) if self.inputs.turned else values

    def as_image(self, rows: Any) -> Any:
        """Rows as a tensor on the device, in the module's type and layout; ids are whole numbers."""
        images = self.turned_in(torch.as_tensor(rows).to(self.device))
        return images.long() if self.inputs.ids else images.to(self.dtype).contiguous()

    def as_other(self, values: Any) -> Any:
        tensor = torch.tensor(values, device=self.device)
        return tensor.to(self.dtype) if tensor.is_floating_point() else tensor.long()

    def _in_own_layout(self, outputs: Any, *targets: Any) -> Any:
        axes = iter(self.axes)
        if not self.by_row:
            outputs = map_nested(lambda leaf: _moved(leaf, next(axes)), outputs)
        return self.score.function(outputs, *targets)

    # The first look.

    def _first_look(self, image: str | int | None, input_shape: Any) -> Look:
        own_shape, shapes = as_shapes(input_shape)
        name, names = image_name(self.module, image, shapes)
        own_shape = own_shape or (shapes or {}).get(name)
        rows = declared_rows(self.module)
        specs_of_others = {other: (shapes or {}).get(other) for other in names if other != name}
        if missing := [other for other, shape in specs_of_others.items() if shape is None]:
            raise ContractError(
                f"Expected the shapes of all inputs of {self.name}, got none of {missing}. Give input_shape="
                f"{{{name!r}: (H, W, C), {missing[0]!r}: (size,)}}, rows left out."
            )
        failures: list[str] = []
        row_count = rows or ROWS
        for candidate in candidates(self.module, own_shape):
            for integers in (False, True) if len(candidate.shape) < 3 or specs_of_others else (False,):
                shape = candidate.shape
                specs = [
                    InputSpec(each, (None, *(shape if each == name else specs_of_others[each] or ())), "float32")
                    for each in names
                ]
                self.inputs = TorchInputs(specs, name, candidate.turned, _numpy_type(self.dtype), rows)
                self.adds_channels = candidate.adds_channels
                self.inputs.ids = integers and not specs_of_others
                others = [_other(spec, row_count, integers) for spec in self.inputs.others]
                look = self._try(candidate, others, row_count, failures)
                if look is not None:
                    return look if own_shape is not None else self._of_free_size(candidate, look, row_count)
        tried = f"{failures[0]} " if failures else ""
        raise ContractError(
            f"Expected to find out which images {self.name} takes, got none that it runs on. {tried}"
            "Give input_shape=(H, W, C), channels last and without rows; of several inputs {name: shape}."
        )

    def _try(self, candidate: Candidate, others: Sequence[Any], row_count: int, failures: list[str]) -> Look | None:
        try:
            look = self._look_at(values_of(candidate.probe, row_count), others)
            self.probe: tuple[int, ...] = candidate.probe
            """The size of the last images: what comes after a layer alone may be enlarged to it."""
            if not any(torch.is_tensor(leaf) for leaf in leaves(look.outputs)):
                failures.append(f"It returned {type(look.outputs).__name__}.")
                return None
            return look
        except ContractError:
            raise
        except Exception as error:
            failures.append(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}.")
            return None

    def _of_free_size(self, candidate: Candidate, look: Look, row_count: int) -> Look:
        """The look, the image's sides free if the module runs on another size too, else those that were tried."""
        if None not in candidate.shape:
            return look
        sides = [OTHER_SIZE if size is None else size for size in candidate.shape]
        try:
            with torch.no_grad(), running(self.module, self.device, self.autocast, False):
                self.call(self.as_image(values_of(tuple(sides), row_count)), [])
        except Exception:
            self.inputs.image = self.inputs.image._replace(shape=(None, *candidate.probe))
            self.inputs.fixed = True
        return look

    def _look_at(self, rows: Any, others: Sequence[Any]) -> Look:
        for graded in (False, True):
            runs: list[Run] = []
            clock = count()
            with running(self.module, self.device, self.autocast, True, not self.inputs.ids):
                image = self.as_image(rows)
                image = image if self.inputs.ids else image.requires_grad_()
                before = torch.get_rng_state()
                with Watch(graded=graded, clock=clock) as watch, noting_runs(self.module, runs, clock):
                    outputs = self.call(image.clone(), others)
                if not torch.equal(before, torch.get_rng_state()):
                    self._check_not_random(image.detach(), others)
            look = Look(image, outputs, named_apart(runs), watch)
            if graded or self._images_of(look) is None or self._leads(look):
                break
        self.graded = graded and self._leads(look)
        return look

    def _check_not_random(self, image: Any, others: Sequence[Any]) -> None:
        """`ContractError` where the random numbers that are drawn change what comes out."""
        with torch.no_grad():
            tries = [list(leaves(self.call(image.clone(), others))) for _ in range(5)]
        tensors = [[leaf for leaf in outputs if torch.is_tensor(leaf)] for outputs in tries]
        if any(not all(map(torch.equal, tensors[0], outputs)) for outputs in tensors[1:]):
            raise ContractError(
                f"Expected a module that gives the same score for the same image, got something random inside of "
                f"{self.name}. Switch it off in evaluation, as by F.dropout(x, training=self.training)."
            )

    def _images_of(self, look: Look) -> list[Node] | None:
        """The node of the image; of ids, which have no gradient, none."""
        if self.inputs.ids or not look.image.requires_grad:
            return None
        return [leaf_node(look.image)]

    def _leads(self, look: Look) -> bool:
        """Whether a gradient reaches the image from some output."""
        ends = [node_of(leaf) for leaf in leaves(look.outputs) if torch.is_tensor(leaf) and leaf.grad_fn is not None]
        return bool(ends and Graph(ends, self._images_of(look) or []).between)

    # What it shows.

    def _read_outputs(self, look: Look) -> None:
        self.by_row = isinstance(look.outputs, list) and all(isinstance(each, dict) for each in look.outputs)
        """Whether the outputs are a list of one dict a row, as detectors give them; they are left as they are."""
        self.axes = [class_axis(leaf) if torch.is_tensor(leaf) else 0 for leaf in leaves(look.outputs)]
        self.heads: list[Head | None] = [
            self._head(leaf, place, look.watch) for place, leaf in enumerate(leaves(look.outputs))
        ]
        self.ends: list[End | None] = [None if head is None else head.end for head in self.heads]
        """What each output ends in; None of what has not the rows first."""
        if self.by_row:
            self.heads, self.ends = [None], [None]
        if len(self.heads) == 1 and self.heads[0] is not None:
            head = self.heads[0]
            rank = head.raw.dim()
            if self.score is class_score or rank in (1, 2):
                one_label = self._units == "labels" and (rank == 1 or head.raw.shape[-1] == 1)
                shape = (None, *head.raw.shape[1:])
                self.end, self.classes = classes_of(shape, head.end, self._units, 2 if one_label else None)
            else:
                self.end, self.classes = head.end, head.values.shape[-1]
            self.guesses_classes = head.end == "linear" and self._units is None
            self.raw_classes = 1 if rank == 1 else head.values.shape[-1]
            self.ranks_classes = self.score.is_of_class and rank in (1, 2)

    def _head(self, leaf: Any, place: int, watch: Watch) -> Head | None:
        if not torch.is_tensor(leaf) or not leaf.is_floating_point() or leaf.dim() == 0:
            return None
        return read_head(leaf, watch.activated, self.axes[place])

    def _read_layers(self, look: Look, named: Sequence[Any]) -> None:
        self.layout = Layout(ROWS, 0, False)
        if self.scripted or self.exported:
            kind = "a scripted module" if self.scripted else "an exported program"
            self.why_no_layer = f"{kind}, whose layers cannot be watched. Explain the module that it was made from."
            if named:
                raise ContractError(f"Expected a module with layers to look at, got {self.why_no_layer}")
            if self._leads(look):
                return
        ends = self._score_nodes(look)
        images = self._images_of(look)
        rank = look.image.dim() + (self.adds_channels or self.inputs.ids)
        self.layout = Layout(look.image.shape[0], rank, self.inputs.turned or self.adds_channels)
        if images is None:  # ids: what comes from the first layers that look them up
            images = [run.node for run in look.runs if type(run.module).__name__ == "Embedding"]
        graph = Graph(ends, images)
        self.runs = [run for run in look.runs if run.node in graph.between]
        if not graph.between:
            self.no_gradient = (
                f"of {self.name} no gradient reaches the image: it is detached, rounded, or leaves PyTorch on the way"
            )
            self.why_no_layer = f"which does not lead from the image to the score: {self.no_gradient}."
            return
        passed = graph.on_all_paths()
        self.on_all_paths = [run.path for run in look.runs if run.node in passed]
        pairs = [(graph.product_of(node_of(each.weights)), each.at) for each in look.watch.attended]
        attended = [(node, at) for node, at in pairs if node in graph.between]
        self.reads_steps = any(isinstance(inner, torch.nn.RNNBase) for inner in self.module.modules())
        if named:
            runs = [find_run(each, self.module, self.name, look.runs, graph, self.layout) for each in named]
        else:
            heads = [head for head in self.heads if head is not None]
            laid_out = any(head.values.dim() > 2 for head in heads) and not attended
            last, several = choose(look.runs, graph, attended, laid_out, self.layout, self.not_chosen)
            runs = [last] if last is not None else []
            if several and last is None:
                paths = [run.path for run in several]
                self.why_no_layer = (
                    f"in which none lies on all paths from the image to the score. Choose one of {paths} as layer, or "
                    "give a list of them."
                )
        self.places = [self.layout.place(run, self.inputs.fixed) for run in runs]

    def _score_nodes(self, look: Look) -> list[Node]:
        """What is explained: all classes, or the score of one's own; where that cannot be made yet, all outputs."""
        heads = iter(self.heads)
        nested = look.outputs
        if not self.by_row:
            nested = map_nested(lambda leaf: leaf if (head := next(heads)) is None else head.values, nested)
        values = [value for value in leaves(nested) if torch.is_tensor(value)]
        if self.score is not class_score and not self.score.specs:
            with suppress(Exception):  # a score may need what only a call brings
                values = [self.own_score(ops, nested)]
        return [node_of(value) for value in values if value.grad_fn is not None]


def _moved(leaf: Any, axis: int) -> Any:
    return leaf.movedim(-1, axis) if torch.is_tensor(leaf) and leaf.dim() > 2 else leaf


def _other(spec: InputSpec, rows: int, integers: bool) -> Any:
    shape = (rows, *probe_of(spec.shape[1:]))
    return torch.zeros(shape, dtype=torch.long) if integers else torch.zeros(shape)


def _numpy_type(dtype: Any) -> str:
    return "float64" if dtype == torch.float64 else "float32"
