from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.typing import NDArray

from brain_mri.models.explain import Method, make_explainer, pointing_game, share_inside
from brain_mri.models.network import build_network
from brain_mri.models.recipe import Recipe, make_recipe

if TYPE_CHECKING:
    import keras

CLASSES = ("a", "b", "c")


def plain_network(size: int = 32) -> keras.Model:
    """A convolution, the mean of each of its maps, and a class for each weighted sum of those."""
    import keras

    keras.utils.set_random_seed(4)
    inputs = keras.Input((size, size, 1))
    x = keras.layers.Rescaling(1 / 255)(inputs)
    x = keras.layers.Conv2D(5, 3, strides=4, padding="same", activation="relu", name="features")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(len(CLASSES), activation="softmax")(x))


def images(count: int, size: int = 32) -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (count, size, size, 1)).astype(np.uint8)


def scaled(maps: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """As large as the images, and with 1 as the largest value."""
    import tensorflow as tf

    resized = tf.image.resize(maps[..., None], (size, size)).numpy()[..., 0]
    return np.asarray(resized / np.maximum(resized.max(axis=(1, 2), keepdims=True), 1e-9))


@pytest.mark.tensorflow
@pytest.mark.parametrize("method", ["grad-cam", "grad-cam++", "hirescam"])
def test_maps_are_those_of_the_papers(method: Method) -> None:
    """Behind global average pooling the gradient of a score is its weight over the number of places."""
    import keras

    network, pictures = plain_network(), images(4)
    features = keras.Model(network.input, network.get_layer("features").output)(pictures).numpy()
    kernel = network.layers[-1].kernel.numpy()
    explained = make_explainer(network, method)(pictures, [0, 1, 2, 1])
    gradient = kernel[:, [0, 1, 2, 1]].T / (8 * 8)  # (image, map)
    weights = gradient
    if method == "grad-cam++":
        sums = features.sum(axis=(1, 2))
        alphas = gradient**2 / (2 * gradient**2 + sums * gradient**3)
        weights = alphas * np.maximum(gradient, 0) * 64
    expected = np.maximum((weights[:, None, None, :] * features).sum(axis=-1), 0)
    np.testing.assert_allclose(explained.maps, scaled(expected, 32), atol=1e-4)
    np.testing.assert_allclose(explained.probabilities, network(pictures).numpy(), atol=1e-5)


@pytest.mark.tensorflow
@pytest.mark.parametrize("backbone", ["compact", "mobilenetv2", "resnet50"])
def test_a_nested_backbone_with_layers_before_it_is_looked_into(backbone: str) -> None:
    recipe = make_recipe("baseline", backbone=backbone, weights=None, image_size=64, classes=CLASSES, seed=1)
    network, pictures = build_network(recipe), images(2, 64)
    explained = make_explainer(network)(pictures, None)
    assert explained.maps.shape == (2, 64, 64)
    assert explained.maps.dtype == np.float32
    assert explained.maps.min() >= 0
    assert explained.maps.max(axis=(1, 2)) == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(explained.probabilities, network(pictures).numpy(), atol=1e-5)


@pytest.mark.tensorflow
def test_without_a_class_the_most_probable_one_is_looked_for() -> None:
    explain, pictures = make_explainer(plain_network()), images(4)
    explained = explain(pictures, None)
    best = explained.probabilities.argmax(axis=1)
    np.testing.assert_array_equal(explained.maps, explain(pictures, best).maps)
    assert (explained.maps != explain(pictures, (best + 1) % 3).maps).any()


@pytest.mark.tensorflow
def test_other_weights_give_another_map() -> None:
    """The sanity check of Adebayo et al., "Sanity Checks for Saliency Maps", NeurIPS 2018."""
    recipe = make_recipe("baseline", backbone="compact", weights=None, image_size=64, classes=CLASSES, seed=1)
    network, pictures = build_network(recipe), images(8, 64)
    first = make_explainer(network)(pictures, [0] * 8).maps
    network.set_weights(build_network(recipe.model_copy(update={"seed": 2})).get_weights())
    second = make_explainer(network)(pictures, [0] * 8).maps
    for before, after in zip(first, second, strict=True):
        assert abs(np.corrcoef(before.ravel(), after.ravel())[0, 1]) < 0.9


@pytest.mark.tensorflow
@pytest.mark.parametrize("method", ["grad-cam", "hirescam"])
def test_a_map_points_at_what_makes_the_class(method: Method) -> None:
    """A class is a bright spot somewhere: trained on that, the map has its highest point there."""
    import keras

    generator = np.random.default_rng(3)
    places = generator.integers(4, 28, (400, 2))
    labels = generator.integers(0, 3, 400)
    pictures = generator.integers(0, 60, (400, 32, 32, 1)).astype(np.uint8)
    spots = np.zeros((400, 32, 32), np.bool_)
    for picture, spot, (row, column), label in zip(pictures, spots, places, labels, strict=True):
        if label:
            spot[row - 4 : row + 4, column - 4 : column + 4] = True
            picture[spot] = 255 if label == 1 else 140
    network = plain_network()
    network.compile(keras.optimizers.Adam(0.02), "sparse_categorical_crossentropy")
    network.fit(pictures, labels, epochs=30, batch_size=50, verbose=0)
    seen = labels == 1
    maps = make_explainer(network, method)(pictures[seen], [1] * int(seen.sum())).maps
    assert pointing_game(maps, spots[seen]) > 0.9
    assert share_inside(maps, spots[seen]).mean() > 3 * spots[seen].mean()


@pytest.mark.tensorflow
def test_networks_that_cannot_be_explained_are_refused(recipe: Recipe) -> None:
    import keras

    inputs = keras.Input((8, 8, 1))
    flat = keras.Model(
        inputs, keras.layers.Dense(2, activation="softmax")(keras.layers.Flatten()(inputs[..., 0]))
    )
    with pytest.raises(ValueError, match="no feature map"):
        make_explainer(flat)
    other = keras.Model(inputs, keras.layers.Softmax()(keras.layers.Flatten()(inputs)))
    with pytest.raises(ValueError, match="not in a dense layer with a softmax"):
        make_explainer(other)
    with pytest.raises(ValueError, match="Unknown method"):
        make_explainer(plain_network(), "saliency")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="a class index for each of 2 images"):
        make_explainer(plain_network())(images(2), [1])


def test_the_pointing_game_counts_hits() -> None:
    maps = np.zeros((2, 4, 4), np.float32)
    maps[0, 1, 1] = maps[1, 3, 3] = 1
    lesions = np.zeros((2, 4, 4), np.bool_)
    lesions[:, :2, :2] = True
    assert pointing_game(maps, lesions) == 0.5
    with pytest.raises(ValueError, match="a lesion for each map"):
        pointing_game(maps, np.zeros((2, 4, 4), np.bool_))


def test_the_share_inside_a_mask_is_of_the_map_and_not_of_the_area() -> None:
    maps = np.array([[[3.0, 1.0]], [[0.0, 0.0]]], np.float32)
    masks = np.array([[[True, False]], [[True, True]]])
    np.testing.assert_array_equal(share_inside(maps, masks), [0.75, np.nan])
