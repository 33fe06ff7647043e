"""The plain way: transfer learning in two stages with Keras' own `fit`, as a good notebook has it.

    python benchmarks/plain/train.py FOLDER resnet50|mobilenetv2 WEIGHTS|random EPOCHS EPOCHS

FOLDER holds `train/<class>/` and `validation/<class>/`. Nothing of this project is used.
"""

from __future__ import annotations

import sys

import keras

SIZE, BATCH = 224, 16
BASES = {
    "resnet50": (keras.applications.ResNet50, keras.applications.resnet50.preprocess_input, 30),
    "mobilenetv2": (keras.applications.MobileNetV2, keras.applications.mobilenet_v2.preprocess_input, 50),
}


class Say(keras.callbacks.Callback):
    """Print a line an epoch."""

    def __init__(self, stage: str) -> None:
        super().__init__()
        self.stage = stage

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:  # noqa: D102 - Keras'
        accuracy = (logs or {})["val_accuracy"]
        print(f"Stage '{self.stage}' epoch {epoch + 1}: validation accuracy {accuracy:.4f}", flush=True)


def main(folder: str, name: str, weights: str, frozen_epochs: int, tuned_epochs: int) -> None:
    """Train the head on a frozen base, then the last layers of the base with it."""
    train, validation = (
        keras.utils.image_dataset_from_directory(
            f"{folder}/{split}", image_size=(SIZE, SIZE), batch_size=BATCH, shuffle=split == "train", seed=42
        ).prefetch(4)
        for split in ("train", "validation")
    )
    build, scale, unfrozen = BASES[name]
    base = build(include_top=False, weights=None, input_shape=(SIZE, SIZE, 3))
    if weights != "random":
        base.load_weights(weights)
    base.trainable = False
    inputs = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.GlobalAveragePooling2D()(base(scale(inputs), training=False))
    x = keras.layers.BatchNormalization()(keras.layers.Dense(256, activation="relu")(x))
    x = keras.layers.Dense(128, activation="relu")(keras.layers.Dropout(0.5)(x))
    outputs = keras.layers.Dense(4, activation="softmax")(keras.layers.Dropout(0.3)(x))
    model = keras.Model(inputs, outputs)

    def fit(stage: str, epochs: int, rate: float) -> None:
        model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
        model.fit(train, validation_data=validation, epochs=epochs, verbose=0, callbacks=[Say(stage)])

    fit("frozen base", frozen_epochs, 1e-3)
    for layer in base.layers[-unfrozen:]:
        layer.trainable = not isinstance(layer, keras.layers.BatchNormalization)
    fit("fine-tuning", tuned_epochs, 1e-5)


if __name__ == "__main__":
    main(*sys.argv[1:4], *map(int, sys.argv[4:]))
