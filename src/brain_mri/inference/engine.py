"""The engine that answers for exported graphs: ONNX Runtime, in float32.

It was measured against OpenVINO (docs/performance.md): as fast in float32 for ResNet-50 and faster for
MobileNetV2. In bfloat16 OpenVINO is faster, and for MobileNetV2 a quarter off.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray


def engine_version() -> str:
    """What decides about the last digits of the engine's answers."""
    return f"onnxruntime {importlib.metadata.version('onnxruntime')}"


Engine: TypeAlias = Callable[[NDArray[np.float32]], list[NDArray[Any]]]
"""From images float32 ``(n, h, w, 1)`` in [0, 255] to an array ``(n, …)`` an output, in their order."""


def open_engine(graph: bytes, threads: int = 0) -> Engine:
    """Open an ONNX graph of one input.

    Args:
        graph: Content of the ``.onnx`` file.
        threads: That it may use; 0 for all cores.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = max(threads, 1)
    options.enable_mem_pattern = False  # one arena for all shapes: a tenth faster on MobileNetV2
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda images: session.run(None, {name: images})
