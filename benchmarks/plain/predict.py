"""The plain way: a saved Keras network asked about a folder, file by file in batches, in one process.

    python benchmarks/plain/predict.py FOLDER NETWORK SIZE TABLE

Nothing of this project is used.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import keras
import numpy as np
from PIL import Image

BATCH = 32


def main(folder: str, network: str, size: int, table: str) -> None:
    """Write path and probabilities of every image of a folder to a CSV file."""
    model = keras.saving.load_model(network, compile=False)
    files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    with Path(table).open("w", newline="") as stream:
        writer = csv.writer(stream)
        for start in range(0, len(files), BATCH):
            paths, pictures = [], []
            for path in files[start : start + BATCH]:
                try:
                    picture = Image.open(path).convert("L").resize((size, size))
                except OSError:
                    continue
                paths.append(path)
                pictures.append(np.asarray(picture, np.float32)[..., np.newaxis])
            if paths:
                answers = model.predict(np.stack(pictures), verbose=0)
                writer.writerows([path, *answer] for path, answer in zip(paths, answers, strict=True))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
