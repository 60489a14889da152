"""Attributes of nodes as Python values, once they are of the types that ONNX says."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from .errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from onnx import NodeProto


def attributes_of(node: NodeProto) -> dict[str, Any]:
    """A node's attributes; strings decoded.

    Raises
    ------
    ModelError
        One has no type.
    """
    from onnx.helper import get_attribute_value

    found = {}
    for attribute in node.attribute:
        try:
            value = get_attribute_value(attribute)
        except ValueError:
            raise ModelError(
                f"its attribute {attribute.name} has the unknown type {attribute.type}"
            ) from None
        found[attribute.name] = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    return found


def check_types(node: NodeProto, opset: int) -> None:
    """Raise `ModelError` if an attribute is not one of those, and of the type, that ONNX has in an operator set."""
    from onnx import AttributeProto

    known = _types(node.op_type, opset)
    if known is None:
        return
    for attribute in node.attribute:
        if attribute.name not in known:
            raise ModelError(
                f"its attribute {attribute.name!r} is unknown; in opset {opset} it has {list(known)}"
            )
        expected = known[attribute.name]
        if attribute.type != expected:
            given = AttributeProto.AttributeType.keys() if 0 <= attribute.type < 15 else ()
            raise ModelError(
                f"its attribute {attribute.name} is of type {given[attribute.type] if given else attribute.type}; "
                f"expected {AttributeProto.AttributeType.Name(expected)}"
            )


@lru_cache(512)
def _types(op_type: str, opset: int) -> Mapping[str, int] | None:
    """The types of an operator's attributes, as numbers of onnx.proto; None if there is no such operator."""
    from onnx import defs

    if not defs.has(op_type):
        return None
    try:
        schema = defs.get_schema(op_type, opset)
    except defs.SchemaError:
        return None
    return {name: int(each.type) for name, each in schema.attributes.items()}  # type: ignore[call-overload]
