"""Small models of texts: an embedding, the mean over the tokens, a dense layer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx_models import node

WORDS = [
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "the", "film", "was", "good", "bad", "not", "great", ",", ".", "!",
    "act", "##ing", "##or",
]  # fmt: skip
"""The vocabulary; a token's number is its place."""

PLAIN = WORDS[:-2]
"""Without pieces of words."""

_rng = np.random.default_rng(11)
TABLE = _rng.normal(0, 1, (300, 4)).astype(np.float32)
WEIGHTS = _rng.normal(0, 1, (2, 4)).astype(np.float32)


def text_model(length: int | str, mask: bool = False) -> onnx.ModelProto:
    """Scores of two classes, (n, 2), from token ids (n, length); with a mask the mean is one of tokens only."""
    nodes = [node("Gather", "table ids", "e")]
    inputs = [helper.make_tensor_value_info("ids", TensorProto.INT64, ["n", length])]
    constants: dict[str, Any] = {"table": TABLE, "w": WEIGHTS}
    if mask:
        inputs.append(helper.make_tensor_value_info("attention_mask", TensorProto.FLOAT, ["n", length]))
        inputs.append(helper.make_tensor_value_info("token_type_ids", TensorProto.INT64, ["n", length]))
        constants["axis"] = np.array([2])
        constants["types"] = np.zeros((2, 4), np.float32)
        nodes += [
            node("Gather", "types token_type_ids", "t"), node("Add", "e t", "s"),
            node("Unsqueeze", "attention_mask axis", "m"), node("Mul", "s m", "f"),
        ]  # fmt: skip
    nodes += [
        node("ReduceMean", "f" if mask else "e", "h", axes=[1], keepdims=0), node("Gemm", "h w", "y", transB=1)
    ]  # fmt: skip
    graph = helper.make_graph(
        nodes, "text", inputs, [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=10)
    model.metadata_props.add(key="labels", value=json.dumps(["negative", "positive"]))
    return model


def expected(ids: list[int], target: int, length: int | None = None) -> NDArray[np.float64]:
    """What each token contributes to an output: the model is linear, so that is its relevance."""
    contributions: NDArray[np.float64] = (
        TABLE[ids].astype(np.float64) @ WEIGHTS[target] / (length or len(ids))
    )
    return contributions


def write_vocabularies(folder: Path) -> None:
    """``vocab.txt`` of whole words, ``bert.txt`` with pieces, and ``tokenizer.json`` of the latter."""
    import tokenizers

    (folder / "vocab.txt").write_text("\n".join(PLAIN) + "\n")
    (folder / "bert.txt").write_text("\n".join(WORDS) + "\n")
    made = tokenizers.BertWordPieceTokenizer({word: i for i, word in enumerate(WORDS)})
    made.enable_padding(pad_id=0, pad_token="[PAD]", length=9)
    made.enable_truncation(9)
    made.save(str(folder / "tokenizer.json"))
