"""Graphs of a classifier that anybody can check by hand, made without TensorFlow."""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper


def linear_graph(weights: NDArray[np.float32], size: int) -> bytes:
    """An ONNX graph of the two outputs that a version has: probabilities and features.

    Args:
        weights: Shape ``(size * size, classes)``; probabilities are the softmax of pixels times weights, and
            those products are the features.
        size: Height and width of the images.
    """
    classes = weights.shape[1]
    nodes = [
        helper.make_node("Flatten", ["images"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["features"]),
        helper.make_node("Softmax", ["features"], ["probabilities"]),
    ]
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [None, size, size, 1])],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, classes])
            for name in ("probabilities", "features")
        ],
        [numpy_helper.from_array(weights.astype(np.float32), "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())
