from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from brain_mri.models.backbones import WeightsError, build_backbone, find_backbone


def test_a_mistyped_backbone_is_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="Did you mean 'resnet50'"):
        find_backbone("resnet-50")


def test_a_missing_file_is_an_error_that_names_the_choices(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"No weights file.*'imagenet'.*null for a random start.*compact"):
        build_backbone("mobilenetv2", str(tmp_path / "absent.weights.h5"), 96)


def test_a_file_that_is_no_weights_file_is_refused_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "weights.txt").write_text("1 2 3")
    with pytest.raises(WeightsError, match="does not look like a weights file"):
        build_backbone("mobilenetv2", str(tmp_path / "weights.txt"), 96)


@pytest.mark.tensorflow
@pytest.mark.parametrize("suffix", [".weights.h5", ".h5", ".keras"])
def test_damaged_weights_are_an_error(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"damaged{suffix}"
    path.write_bytes(b"no such format")
    with pytest.raises(WeightsError, match="holds no weights that fit compact"):
        build_backbone("compact", str(path), 64)


@pytest.mark.tensorflow
@pytest.mark.parametrize("suffix", [".weights.h5", ".keras"])
def test_weights_of_another_network_are_an_error(tmp_path: Path, suffix: str) -> None:
    import keras

    inputs = keras.Input((64, 64, 1))
    other = keras.Model(inputs, keras.layers.Conv2D(3, 3)(inputs))
    path = tmp_path / f"other{suffix}"
    other.save_weights(path) if suffix == ".weights.h5" else other.save(path)
    with pytest.raises(WeightsError, match="holds no weights that fit compact"):
        build_backbone("compact", str(path), 64)


@pytest.mark.tensorflow
@pytest.mark.parametrize("suffix", [".weights.h5", ".keras"])
def test_weights_come_from_a_file(tmp_path: Path, suffix: str) -> None:
    source = build_backbone("compact", None, 64)
    path = tmp_path / f"compact{suffix}"
    source.save_weights(path) if suffix == ".weights.h5" else source.save(path)
    loaded = build_backbone("compact", str(path), 64)
    for expected, found in zip(source.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.tensorflow
def test_imagenet_weights_that_cannot_be_had_are_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import keras

    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nothing answers there
    monkeypatch.setattr(keras.src.backend.config, "_KERAS_DIR", str(tmp_path))  # an empty cache
    with pytest.raises(WeightsError, match=r"could not be downloaded.*null for a random start"):
        build_backbone("mobilenetv2", "imagenet", 96)


def test_compact_has_no_imagenet_weights() -> None:
    with pytest.raises(WeightsError, match="no ImageNet weights for compact"):
        build_backbone("compact", "imagenet", 64)


@pytest.mark.tensorflow
@pytest.mark.realdata
def test_the_real_weights_give_keras_own_features(real_weights: Path) -> None:
    import keras

    images = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3)).astype(np.float32)
    prepared = keras.applications.mobilenet_v2.preprocess_input(images.copy())
    reference = keras.applications.MobileNetV2(include_top=False, weights=str(real_weights))
    found = build_backbone("mobilenetv2", str(real_weights), 224)(prepared, training=False)
    np.testing.assert_allclose(found, reference(prepared, training=False), atol=1e-5)
