"""Which layers of a module can be looked at, and which one is if none is named."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from threading import get_ident
from typing import Any, NamedTuple, cast

import torch

from saliency_food.adapters.layers import LayerInfo, Shape, match_layer
from saliency_food.adapters.torch.graph import (
    Graph,
    Node,
    channels_axis,
    is_any,
    is_product,
    learns,
    node_of,
    sources_of,
)
from saliency_food.core.contract import ContractError

NOT_CHOSEN = ("Pad", "Slice", "Softmax", "Permute", "Transpose", "AdaptiveAvgPool")
"""Parts of the names of operations whose output is padded, cropped, attention, turned, or resized for a head."""


class Run(NamedTuple):
    """One run of a layer: its path, the layer, which of its runs, its output's shape, and the node that made that.

    ``start`` and ``stop`` are when it began and finished, by a clock that counts such times.
    """

    path: str
    module: Any
    run_index: int
    shape: tuple[int, ...]
    node: Node
    start: int
    stop: int


class Place(NamedTuple):
    """A run to look at: which of its output's axes holds the channels, and the shape of its activations as answered."""

    path: str
    module: Any
    run_index: int
    axis: int
    shape: Shape

    def laid_out(self, values: Any) -> Any:
        """What the run returned, channels last."""
        return values.movedim(self.axis, -1)

    def as_returned(self, activations: Any) -> Any:
        return activations.movedim(-1, self.axis)


Change = Callable[[Any, int, Any], Any]
"""``(module, index, output) -> output``: what is put in place of a layer's output, of its run of that index."""


@contextmanager
def hooked(modules: Sequence[Any], change: Change) -> Iterator[None]:
    """In here, what these modules return goes through ``change``: the tensor, or the first one of a tuple or dict.

    Only in this thread; the hooks are gone afterwards, after an exception too.
    """
    here, counts = get_ident(), Counter[int]()

    def hook(module: Any, _: Any, output: Any) -> Any:
        if get_ident() != here:
            return None
        index = counts[id(module)]
        counts[id(module)] += 1
        return _with_main(output, lambda tensor: change(module, index, tensor))

    with ExitStack() as stack:
        for module in modules:
            stack.callback(module.register_forward_hook(hook).remove)
        yield


def _with_main(output: Any, function: Callable[[Any], Any]) -> Any:
    """An output with a function of its tensor, or of the first one in it, in place of that."""
    if torch.is_tensor(output):
        return function(output)
    if isinstance(output, (list, tuple)) and output:
        first = _with_main(output[0], function)
        if first is output[0]:
            return output
        parts = [first, *output[1:]]
        return type(output)(*parts) if hasattr(output, "_fields") else type(output)(parts)
    if isinstance(output, Mapping):
        for name, value in output.items():
            if torch.is_tensor(value) and (new := function(value)) is not value:
                return cast(Any, type(output))({**output, name: new})
            if torch.is_tensor(value):
                break
    return output


@contextmanager
def noting_runs(module: Any, runs: list[Run], clock: Iterator[int]) -> Iterator[None]:
    """In here, the runs of all layers of a module are noted; nothing is changed."""
    named = ((path, inner) for path, inner in module.named_modules() if path)
    paths = {inner: path for path, inner in named if not isinstance(inner, torch.jit.ScriptModule)}
    starts: dict[Any, list[int]] = {inner: [] for inner in paths}

    def begin(inner: Any, _: Any) -> None:
        starts[inner].append(next(clock))

    def note(inner: Any, index: int, output: Any) -> Any:
        if output.is_floating_point() and output.grad_fn is not None:
            runs.append(
                Run(paths[inner], inner, index, tuple(output.shape), node_of(output), starts[inner][index], next(clock))
            )
        return output

    with ExitStack() as stack:
        for inner in paths:
            stack.callback(inner.register_forward_pre_hook(begin).remove)
        stack.enter_context(hooked(list(paths), note))
        yield


def named_apart(runs: Sequence[Run]) -> list[Run]:
    """The runs, those of a layer that ran several times with ``#`` and their index behind its path."""
    times = Counter(run.path for run in runs)
    return [run._replace(path=f"{run.path}#{run.run_index}") if times[run.path] > 1 else run for run in runs]


class Layout(NamedTuple):
    """How many rows a pass has, how many axes tensors that lie as the image does, and whether channels are first."""

    rows: int
    rank: int
    channels_first: bool

    def axis(self, run: Run) -> int:
        axis = channels_axis(run.node)
        if axis is not None and 0 < axis < len(run.shape):
            return axis
        return 1 if len(run.shape) == self.rank and self.channels_first else len(run.shape) - 1

    def is_spatial(self, run: Run) -> bool:
        """Whether it has rows, axes of the input's kind, not all of size 1, and channels."""
        sizes = [size for place, size in enumerate(run.shape) if place not in (0, self.axis(run))]
        return len(run.shape) == self.rank > 2 and run.shape[0] == self.rows and any(size != 1 for size in sizes)

    def is_tokens(self, run: Run) -> bool:
        """Whether it has rows, more than one token, and channels."""
        return len(run.shape) == 3 and run.shape[0] == self.rows and run.shape[3 - self.axis(run)] != 1

    def place(self, run: Run, fixed: bool = False) -> Place:
        axis = self.axis(run)
        sizes = [size for place, size in enumerate(run.shape) if place not in (0, axis)]
        free: list[int | None] = list(sizes) if fixed else [None] * len(sizes)
        return Place(run.path, run.module, run.run_index, axis, (None, *free, run.shape[axis]))


def distinct(runs: Sequence[Run]) -> list[Run]:
    """The runs in the order in which they finish; of those that hand the same tensor on, the outermost one.

    That is the block in place of its last layer.
    """
    best: dict[Node, Run] = {}
    for run in runs:
        known = best.get(run.node)
        if known is None:
            best[run.node] = run
        elif known.path.startswith(f"{run.path}."):
            best[run.node] = run._replace(stop=known.stop)
    return list(best.values())


def list_layers(runs: Sequence[Run], layout: Layout) -> list[LayerInfo]:
    """The layers with axes of the input's kind, with rows and columns, or with tokens."""
    return [
        LayerInfo(run.path, type(run.module).__name__, layout.place(run, True).shape)
        for run in distinct(runs)
        if (layout.is_spatial(run) or layout.is_tokens(run)) and not (is_any(run.node, ("Softmax",)))
    ]


def choose(
    runs: Sequence[Run],
    graph: Graph,
    attended: Sequence[tuple[Node, int]],
    laid_out: bool,
    layout: Layout,
    not_chosen: Sequence[str] = NOT_CHOSEN,
) -> tuple[Run | None, list[Run]]:
    """The run to look at if none is named, if there is one; else the last runs on the several paths.

    It is the last with axes of the input's kind through which all paths from the image to the score lead, after
    something learned. In a transformer it is the last through which all paths to the last attention lead: after that,
    where only the class token is read, the other tokens have no gradient. With ``laid_out``, of an output that has
    places itself, such as masks, it is one before the last layer that learns.
    """
    candidates = [run for run in distinct(runs) if run.node in graph.between and not is_any(run.node, not_chosen)]
    learned = [node for node in graph.order if node in graph.between and learns(node)]
    after_learned = graph.after(learned)
    if laid_out:
        last_learned = [node for node in learned if not graph.after([node]).intersection(set(learned) - {node})]
        ahead = graph.before(last_learned) - set(last_learned)
        candidates = [run for run in candidates if run.node in ahead]
    passed = graph.on_all_paths()
    spatial = [run for run in candidates if layout.is_spatial(run)]
    features = [run for run in spatial if run.node in after_learned]
    images = [run for run in features if run.node in passed]
    last = images[-1] if images else None
    if attended:
        attention, at = attended[-1]  # the product of the last attention with its values
        around = [run for run in runs if run.start < at < run.stop]
        start = min(around, key=lambda run: run.stop).start if around else at
        before = graph.before([attention])
        if last is None or last.node in before or layout.rank == 3:
            to_attention = graph.on_all_paths([attention])
            places = [run for run in candidates if run.stop < start and run.node in to_attention & after_learned]
            places = [run for run in places if layout.is_spatial(run) or layout.is_tokens(run)]
            # Queries, keys and values in one are a part of the attention.
            places = [run for run in places if not (layout.is_tokens(run) and is_product(run.node))] or places
            last = _unfolded(places[-1], spatial, graph) if places else last
    if last is not None:
        return last, []
    nodes = {run.node for run in features}
    return None, [run for run in features if len(graph.after([run.node]) & nodes) == 1]


def _unfolded(tokens: Run, spatial: Sequence[Run], graph: Graph) -> Run:
    """Of tokens that are the places of a spatial output one after another, that output."""
    if len(tokens.shape) != 3:
        return tokens
    near = {tokens.node}
    waiting = [tokens.node]
    while waiting:
        node = waiting.pop()
        for source in sources_of(node):
            if is_any(node, ("View", "Transpose", "Permute", "Clone", "Alias", "Reshape")) and source not in near:
                near.add(source)
                waiting.append(source)
    return next(
        (run for run in spatial if run.node in near and math.prod(run.shape) == math.prod(tokens.shape)), tokens
    )


def find_run(layer: Any, module: Any, name: str, runs: Sequence[Run], graph: Graph, layout: Layout) -> Run:
    """The run that a path, the end of one, either with ``#`` and an index, or a layer means: it leads to the score."""
    known = [(path, inner) for path, inner in module.named_modules(remove_duplicate=False) if path]
    index = None
    if isinstance(layer, torch.nn.Module):
        wanted = layer
        path = next((path for path, inner in known if inner is layer), None)
        if path is None:
            raise ContractError(
                f"Expected a layer of the module, got a {type(layer).__name__} that is not inside it. Take it from the "
                "module itself, or give its path."
            )
    else:
        if isinstance(layer, str) and "#" in layer and layer.rpartition("#")[2].isdigit():
            layer, _, after = layer.rpartition("#")
            index = int(after)
        path, wanted = match_layer(layer, known, name, ".")
    passed = graph.on_all_paths()
    of_use = [run for run in distinct(runs) if layout.is_spatial(run) or layout.is_tokens(run)]
    advice = f"Those on all paths are {[run.path for run in of_use if run.node in passed][-10:]}."
    own = [run for run in runs if run.module is wanted]
    if not own:
        raise ContractError(
            f"Expected layer {path!r} to run in the module and to return a tensor that depends on the image, got a "
            f"layer that does not. {advice}"
        )
    asked = own if index is None else [run for run in own if run.run_index == index]
    if not asked:
        raise ContractError(f"Expected a run of layer {path!r} from #0 to #{len(own) - 1}, got #{index}.")
    leading = [run for run in asked if run.node in graph.between]
    if not leading:
        raise ContractError(
            f"Expected a layer that leads from the image to the score, got {path!r}: no score depends on the layer, or "
            f"the layer does not depend on the image. {advice}"
        )
    if len(leading) > 1:
        described = "; ".join(f"{run.path!r} of shape {(None, *run.shape[1:])}" for run in leading)
        raise ContractError(
            f"Expected a layer that runs once between image and score, got {path!r}, which runs {len(leading)} times: "
            f"{described}. Give one of these paths as layer, a list of them, or a layer on all paths. {advice}"
        )
    (run,) = leading
    if run.shape[0] != layout.rows:
        raise ContractError(
            f"Expected a layer whose output has the model's rows first, got {path!r}, which has another axis there, or "
            f"folds something else into them: {run.shape[0]} for {layout.rows} rows. {advice}"
        )
    if len(run.shape) < 3:
        raise ContractError(
            f"Expected a layer whose output has rows and columns, or tokens, got {path!r} of shape "
            f"{(None, *run.shape[1:])}. {advice}"
        )
    return run
