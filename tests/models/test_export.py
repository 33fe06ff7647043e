from __future__ import annotations

import numpy as np
import pytest

from brain_mri.models import export
from brain_mri.models.network import build_network
from brain_mri.models.recipe import Recipe
from tests.array_shards import ArrayShards

pytestmark = pytest.mark.tensorflow


def test_the_graph_answers_as_the_network_for_any_batch(recipe: Recipe, validation: ArrayShards) -> None:
    import onnxruntime

    model = build_network(recipe)
    graph = export.export_onnx(model, validation.pixels[:4, ..., None])
    assert 0 <= graph.difference < 1e-5
    session = onnxruntime.InferenceSession(graph.content, providers=["CPUExecutionProvider"])
    images = validation.pixels[:7, ..., None].astype(np.float32)
    (answers,) = session.run(None, {session.get_inputs()[0].name: images})
    np.testing.assert_allclose(answers, model(images, training=False), atol=1e-5)


def test_a_graph_that_answers_otherwise_is_refused(
    recipe: Recipe, validation: ArrayShards, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "LARGEST_DIFFERENCE", -1.0)
    with pytest.raises(export.ExportError, match=r"differs from the network by .* on 4 images"):
        export.export_onnx(build_network(recipe), validation.pixels[:4, ..., None])
