from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from brain_mri.models import export
from brain_mri.models.network import build_network
from brain_mri.models.recipe import Recipe
from brain_mri.models.shards import ArrayShards

pytestmark = pytest.mark.tensorflow


def test_the_graph_answers_as_the_network_for_any_batch(recipe: Recipe, validation: ArrayShards) -> None:
    import onnxruntime

    model = build_network(recipe)
    graph = export.export_onnx(model, recipe, validation.pixels[:4, ..., None])
    assert 0 <= graph.difference < 1e-5
    session = onnxruntime.InferenceSession(graph.content, providers=["CPUExecutionProvider"])
    images = validation.pixels[:7, ..., None].astype(np.float32)
    answers, features = session.run(None, {session.get_inputs()[0].name: images})
    np.testing.assert_allclose(answers, model(images, training=False), atol=1e-5)
    pooled = model.get_layer("compact")(model.get_layer("scale")(images), training=False)
    np.testing.assert_allclose(features, pooled, rtol=1e-4, atol=1e-5)


def test_a_graph_that_answers_otherwise_is_refused(
    recipe: Recipe, validation: ArrayShards, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "LARGEST_DIFFERENCE", -1.0)
    with pytest.raises(export.ExportError, match=r"differs from the network by .* on 4 images"):
        export.export_onnx(build_network(recipe), recipe, validation.pixels[:4, ..., None])


_EXPORT = """
from pathlib import Path

import numpy

from brain_mri.models.export import onnx_graph
from brain_mri.models.network import build_network
from brain_mri.models.recipe import make_recipe

recipe = make_recipe("baseline", backbone="resnet50", weights=None, image_size=64, classes=("a", "b"), seed=1)
network = build_network(recipe)
network(numpy.zeros((1, 64, 64, 1), "float32"))
peak = lambda: 1024 * int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
before = peak()
size = len(onnx_graph(network))
print(size, peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
def test_an_export_holds_few_copies_of_the_weights() -> None:
    done = subprocess.run([sys.executable, "-c", _EXPORT], capture_output=True, text=True, check=True)
    size, grown = map(int, done.stdout.split())
    assert size > 90e6
    assert grown < 40 * size, "tf2onnx makes a copy for every optimization that it tries"
