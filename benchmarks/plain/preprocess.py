"""The plain way: Spark over single image files, as a good tutorial has it. Nothing of this project is used.

    spark-submit benchmarks/plain/preprocess.py hdfs:///scans hdfs:///prepared

Pillow decodes and resizes, pixels are float32 in [0, 1], and what is prepared is saved once.
"""

from __future__ import annotations

import io
import sys
from typing import Any

import numpy as np
from PIL import Image
from pyspark import SparkContext

SIZE = 224


def prepare(file: tuple[str, bytes]) -> tuple[str, Any]:
    """Turn a file into its label and its pixels, float32 (224, 224)."""
    path, content = file
    image = Image.open(io.BytesIO(content)).convert("L").resize((SIZE, SIZE))
    return path.split("/")[-2], np.asarray(image, np.float32) / 255


def preprocess(context: SparkContext, source: str, target: str, parts: int = 1000) -> None:
    """Prepare every file of `source/<class>/`, and save the result as `target`."""
    # Spark takes every file for 4 MiB when it cuts the work; small files need to be asked for in many parts.
    files = context.binaryFiles(f"{source}/*", minPartitions=parts)
    files.map(prepare).saveAsPickleFile(target)


if __name__ == "__main__":
    preprocess(SparkContext(appName="plain preprocessing"), sys.argv[1], sys.argv[2])
