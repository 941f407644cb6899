"""The sentence encoder all-MiniLM-L6-v2 with its trained weights, as torch's exporter writes a BERT (opset 14).

Wang et al. 2020, arXiv 2002.10957; Reimers and Gurevych 2019, arXiv 1908.10084: six layers of width 384 with twelve
heads, the mean over the tokens of a sentence, scaled to length 1. Layer norms and GELU are written out in elementary
operators, batch and sequence are symbolic.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from models.real import real_model
from models.safetensors import read_float_tensors

OPSET = 14
IR_VERSION = 8
LAYERS, WIDTH, HEADS = 6, 384, 12
EPSILON = 1e-12
BEGIN, END, UNKNOWN = "[CLS]", "[SEP]", "[UNK]"
INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def minilm() -> onnx.ModelProto:
    """int64[batch, sequence] ids, mask and types to `sentence_embedding`, float32[batch, 384].

    Raises MissingModelError when the weights are not fetched.
    """
    return _Encoder(read_float_tensors(real_model("minilm_weights"))).model()


def minilm_feed(sentences: Sequence[str], length: int) -> dict[str, NDArray[np.int64]]:
    """Sentences of words in the vocabulary, padded to `length` tokens: int64[sentences, length] each."""
    words = real_model("minilm_vocabulary").read_text("utf-8").splitlines()
    numbers = {word: number for number, word in enumerate(words)}
    ids = np.zeros((len(sentences), length), np.int64)
    for row, sentence in zip(ids, sentences):
        tokens = [BEGIN, *sentence.lower().split(), END]
        row[: len(tokens)] = [numbers.get(token, numbers[UNKNOWN]) for token in tokens]
    return {"input_ids": ids, "attention_mask": (ids != 0).astype(np.int64), "token_type_ids": np.zeros_like(ids)}


class _Encoder:
    """Collects nodes; every method returns the name of the tensor that it adds."""

    def __init__(self, weights: dict[str, NDArray[np.float32]]) -> None:
        self._weights = weights
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}

    def model(self) -> onnx.ModelProto:
        """The whole graph, checked."""
        x = self._embeddings()
        for layer in range(LAYERS):
            x = self._layer(x, f"encoder.layer.{layer}")
        self._pool(x)
        inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "sequence"]) for name in INPUTS]
        output = helper.make_tensor_value_info("sentence_embedding", TensorProto.FLOAT, ["batch", WIDTH])
        graph = helper.make_graph(self._nodes, "minilm", inputs, [output], list(self._constants.values()))
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
        onnx.checker.check_model(model)
        return model

    def _node(self, operator: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        self._nodes.append(helper.make_node(operator, inputs, [name], name=name, **attributes))
        return name

    def _constant(self, value: NDArray[Any], name: str) -> str:
        self._constants[name] = numpy_helper.from_array(value, name)
        return name

    def _number(self, value: float, name: str) -> str:
        return self._constant(np.array(value, np.float32), name)

    def _integers(self, *values: int) -> str:
        return self._constant(np.array(values, np.int64), f"integers{list(values)}")

    def _weight(self, name: str) -> str:
        return self._constant(self._weights[name], name)

    def _embeddings(self) -> str:
        words = self._node("Gather", [self._weight("embeddings.word_embeddings.weight"), INPUTS[0]], "words")
        types = self._node("Gather", [self._weight("embeddings.token_type_embeddings.weight"), INPUTS[2]], "types")
        shape = self._node("Shape", [INPUTS[0]], "shape")
        length = self._node("Slice", [shape, self._integers(1), self._integers(2)], "length")
        table = self._weight("embeddings.position_embeddings.weight")
        places = self._node("Slice", [table, self._integers(0), length], "positions")
        both = self._node("Add", [words, types], "words_and_types")
        return self._norm(self._node("Add", [both, places], "embeddings"), "embeddings.LayerNorm")

    def _layer(self, x: str, name: str) -> str:
        context = self._attention(x, f"{name}.attention.self")
        x = self._residual(context, x, f"{name}.attention.output")
        inner = self._gelu(self._linear(x, f"{name}.intermediate.dense"), f"{name}.intermediate")
        return self._residual(inner, x, f"{name}.output")

    def _residual(self, x: str, skip: str, name: str) -> str:
        total = self._node("Add", [self._linear(x, f"{name}.dense"), skip], f"{name}.add")
        return self._norm(total, f"{name}.LayerNorm")

    def _linear(self, x: str, name: str) -> str:
        weight = self._constant(np.ascontiguousarray(self._weights[f"{name}.weight"].T), f"{name}.weight")
        product = self._node("MatMul", [x, weight], f"{name}.matmul")
        return self._node("Add", [self._weight(f"{name}.bias"), product], f"{name}.add")

    def _attention(self, x: str, name: str) -> str:
        query, key, value = (
            self._heads(self._linear(x, f"{name}.{part}"), f"{name}.{part}", [0, 2, 3, 1] if part == "key" else None)
            for part in ("query", "key", "value")
        )
        scores = self._node("MatMul", [query, key], f"{name}.scores")
        root = self._number((WIDTH / HEADS) ** 0.5, "root_of_head_width")
        scaled = self._node("Div", [scores, root], f"{name}.scaled")
        masked = self._node("Add", [scaled, self._mask], f"{name}.masked")
        shares = self._node("Softmax", [masked], f"{name}.softmax", axis=-1)
        context = self._node("MatMul", [shares, value], f"{name}.context")
        back = self._node("Transpose", [context], f"{name}.transpose", perm=[0, 2, 1, 3])
        return self._node("Reshape", [back, self._integers(0, 0, WIDTH)], f"{name}.joined")

    def _heads(self, x: str, name: str, order: list[int] | None) -> str:
        split = self._node("Reshape", [x, self._integers(0, 0, HEADS, WIDTH // HEADS)], f"{name}.heads")
        return self._node("Transpose", [split], f"{name}.transpose", perm=order or [0, 2, 1, 3])

    @cached_property
    def _mask(self) -> str:
        """Added to the scores: 0 for tokens, the most negative float32 for padding."""
        wide = self._node("Unsqueeze", [INPUTS[1], self._integers(1, 2)], "mask.unsqueeze")
        floats = self._node("Cast", [wide], "mask.cast", to=TensorProto.FLOAT)
        absent = self._node("Sub", [self._number(1, "one"), floats], "mask.absent")
        lowest = self._number(float(np.finfo(np.float32).min), "lowest")
        return self._node("Mul", [absent, lowest], "mask")

    def _norm(self, x: str, name: str) -> str:
        mean = self._node("ReduceMean", [x], f"{name}.mean", axes=[-1])
        centred = self._node("Sub", [x, mean], f"{name}.centred")
        square = self._node("Pow", [centred, self._number(2, "two")], f"{name}.square")
        variance = self._node("ReduceMean", [square], f"{name}.variance", axes=[-1])
        lifted = self._node("Add", [variance, self._number(EPSILON, "epsilon")], f"{name}.lifted")
        deviation = self._node("Sqrt", [lifted], f"{name}.deviation")
        normal = self._node("Div", [centred, deviation], f"{name}.normal")
        scaled = self._node("Mul", [normal, self._weight(f"{name}.weight")], f"{name}.scaled")
        return self._node("Add", [scaled, self._weight(f"{name}.bias")], f"{name}.shifted")

    def _gelu(self, x: str, name: str) -> str:
        divided = self._node("Div", [x, self._number(2**0.5, "root_of_two")], f"{name}.divided")
        erf = self._node("Erf", [divided], f"{name}.erf")
        lifted = self._node("Add", [erf, self._number(1, "one")], f"{name}.lifted")
        product = self._node("Mul", [x, lifted], f"{name}.product")
        return self._node("Mul", [product, self._number(0.5, "half")], f"{name}.gelu")

    def _pool(self, x: str) -> None:
        """The mean over the tokens, padding left out, scaled to length 1."""
        column = self._node("Unsqueeze", [INPUTS[1], self._integers(-1)], "pool.mask")
        floats = self._node("Cast", [column], "pool.cast", to=TensorProto.FLOAT)
        kept = self._node("Mul", [x, floats], "pool.kept")
        total = self._node("ReduceSum", [kept, self._integers(1)], "pool.total", keepdims=0)
        count = self._node("ReduceSum", [floats, self._integers(1)], "pool.count", keepdims=0)
        mean = self._node("Div", [total, self._node("Clip", [count, self._number(1e-9, "least")], "pool.clip")], "mean")
        length = self._node("ReduceL2", [mean], "norm.length", axes=[-1])
        safe = self._node("Clip", [length, self._number(1e-12, "epsilon")], "norm.clip")
        self._node("Div", [mean, safe], "sentence_embedding")
