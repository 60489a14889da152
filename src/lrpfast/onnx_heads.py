"""What of a model is explained: one of its outputs; where that is a label, the scores that the label is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from .errors import ModelError
from .onnx_attributes import attributes_of, lists_of
from .ops.reading import Constant

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto, TensorProto

PASSING = ("Identity", "Cast", "Flatten", "Reshape", "Squeeze", "Unsqueeze")
"""Operators behind which a label is the same label."""

MONOTONE = (*PASSING, "LogSoftmax", "Normalizer", "Sigmoid", "Softmax")
"""Operators behind which scores are in the same order."""

LONGEST = 64
"""So many nodes may lie between scores and a label, one behind the other."""

Labels = tuple[str, ...]


class Chosen(NamedTuple):
    """What a graph is to end in.

    Attributes
    ----------
    output : str
        The array's name.
    labels : tuple of str, or None
        What the model calls its classes.
    notes : tuple of str
        What was decided without being asked for, in words.
    """

    output: str
    labels: Labels | None
    notes: tuple[str, ...]


class Head(NamedTuple):
    """How an array of scores becomes a label, or a table of scores by label (ZipMap).

    Attributes
    ----------
    scores : str
        The array's name.
    labels : tuple of str, or None
        By class.
    kind : str
        The operator that does it.
    """

    scores: str
    labels: Labels | None
    kind: str


def choose(graph: GraphProto, name: str | None, read: Callable[[TensorProto], Constant]) -> Chosen:
    """Say which array is explained.

    Parameters
    ----------
    graph : onnx.GraphProto
    name : str or None
        The array that is asked for; if none is, the only output that is no label.
    read : callable
        Gives the value of one of the graph's tensors.

    Raises
    ------
    ModelError
        There is no such array; or none is asked for, and there are several to choose from.
    """
    names = [value.name for value in graph.output]
    if name is not None and name not in names and not any(name in node.output for node in graph.node):
        raise ModelError(f"it has no output or other array {name!r}; its outputs are {', '.join(names)}")
    ends = _Ends(graph, read)
    heads = {each: ends.head(each) for each in names}
    chosen = ends.only(heads) if name is None else name
    head = ends.head(chosen)
    output, notes = chosen, []
    if head is not None:
        output = head.scores
        notes.append(f"{chosen}: cut off at {head.kind}; explained, and predicted, are its scores {output!r}")
    elif name is None and len(names) > 1:
        others = ", ".join(each for each in names if each != chosen)
        notes.append(f"{chosen}: explained, since it has the scores that {others} is made of")
    plain = ends.unnormalized(output)
    if plain != output:
        notes.append(f"{output}: cut off, it divides by a norm; explained, and predicted, is {plain!r}")
    known = (each.labels for each in (head, *heads.values()) if each and ends.same(each.scores, plain))
    return Chosen(plain, next(filter(None, known), None), tuple(notes))


class _Ends:
    """The ends of a graph, followed back from its outputs."""

    def __init__(self, graph: GraphProto, read: Callable[[TensorProto], Constant]) -> None:
        self.producers = {output: node for node in graph.node for output in node.output if output}
        self.tensors = {tensor.name: tensor for tensor in graph.initializer}
        self.read = read
        self.labels: dict[str, Labels | None] = {}

    def only(self, heads: Mapping[str, Head | None]) -> str:
        """The only output that is no label, if all labels are made of it; of labels of one array, the first."""
        if len(heads) == 1:
            return next(iter(heads))
        arrays = {name: name if head is None else head.scores for name, head in heads.items()}
        named = [name for name, head in heads.items() if head is None or head.kind == "ZipMap"]
        candidates = named or list(heads)[:1]
        if len({self.through(arrays[name], ("Identity",)) for name in candidates}) == 1 and all(
            self.same(arrays[candidates[0]], array) for array in arrays.values()
        ):
            return candidates[0]
        raise ModelError(
            f"it has {len(heads)} outputs, {', '.join(heads) or 'none'}; say which one is to be explained: output=…"
        )

    def head(self, name: str) -> Head | None:
        """How `name` is made of scores; None if it is no label."""
        labels: Labels | None = None
        for _ in range(LONGEST):  # a damaged model may go in circles
            node = self.producers.get(name)
            if node is None:
                return None
            scores = self._scores(node, name)
            if scores is not None:
                return Head(scores, self._once(name, partial(_class_labels, node)) or labels, node.op_type)
            first, second = _inputs(node)
            if node.op_type in PASSING:
                name = first
            elif node.op_type == "LabelEncoder":
                name, labels = first, self._once(name, partial(_encoded, node))
            elif node.op_type in ("ArrayFeatureExtractor", "Gather") and self._is_list(first):
                name, labels = second, self._once(first, partial(self._listed, first))
            else:
                return None
        return None

    def _once(self, name: str, make: Callable[[], Labels | None]) -> Labels | None:
        """The labels that belong to an array, however many outputs lead to it."""
        if name not in self.labels:
            self.labels[name] = make()
        return self.labels[name]

    def _listed(self, name: str) -> Labels:
        return _texts(self.read(self.tensors[name]).reshape(-1))

    def _scores(self, node: NodeProto, name: str) -> str | None:
        """The array whose largest elements, or those above a threshold, a node tells."""
        first, second = _inputs(node)
        if node.op_type.endswith("Classifier"):  # of ai.onnx.ml, linear or not
            return node.output[1] if len(node.output) > 1 and name == node.output[0] else None
        tells = {
            "ArgMax": True, "Binarizer": True, "ZipMap": True,
            "Greater": second in self.tensors, "GreaterOrEqual": second in self.tensors,
            "TopK": node.op_type == "TopK" and attributes_of(node).get("largest", 1),
        }  # fmt: skip
        return first if tells.get(node.op_type) else None

    def _is_list(self, name: str) -> bool:
        """Whether an array is a constant without more than one axis of several places."""
        tensor = self.tensors.get(name)
        return tensor is not None and sum(n != 1 for n in tensor.dims) <= 1

    def through(self, name: str, kinds: Sequence[str]) -> str:
        """The array that `name` is made of by operators of some kinds."""
        for _ in range(LONGEST):
            node = self.producers.get(name)
            if node is None or node.op_type not in kinds:
                break
            name = _inputs(node)[0]
        return name

    def unnormalized(self, name: str) -> str:
        """The array that `name` is but for its norm; `name` itself if it is made otherwise."""
        node = self.producers.get(self.through(name, ("Identity",)))
        return _inputs(node)[0] if node is not None and node.op_type == "Normalizer" else name

    def same(self, one: str, other: str) -> bool:
        """Whether two arrays hold the same scores, but for operators that keep their order."""
        return self.through(one, MONOTONE) == self.through(other, MONOTONE)


def _inputs(node: NodeProto) -> tuple[str, str]:
    """The first two; "" for one that is missing, which is refused when the node is read."""
    first, second = [*node.input, "", ""][:2]
    return first, second


def _class_labels(node: NodeProto) -> Labels | None:
    """The labels that a node itself has for its scores."""
    given = lists_of(node)
    names = ("classlabels_strings", "classlabels_int64s", "classlabels_ints")
    return next((_texts(given[name]) for name in names if given.get(name)), None)


def _encoded(node: NodeProto) -> Labels | None:
    """The labels that a LabelEncoder has for 0, 1, …."""
    given = lists_of(node)
    if "classes_strings" in given:
        return _texts(given["classes_strings"])
    values = given.get("values_strings", given.get("values_int64s", ()))
    by_index = dict(zip(given.get("keys_int64s", ()), values, strict=False))
    return (
        _texts(by_index[i] for i in range(len(by_index)))
        if set(by_index) == set(range(len(by_index)))
        else None
    )


def _texts(items: Iterable[Any]) -> Labels:
    return tuple(item.decode("utf-8", "replace") if isinstance(item, bytes) else str(item) for item in items)
