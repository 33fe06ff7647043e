"""How fast one core turns image files into model inputs: ours against the plain way, in one run.

    python benchmarks/imaging.py [--source FOLDER] [--quick]

The plain way is what notebooks do: Pillow decodes in colour, converts to grey and resizes with a box filter.
Prints a table and writes benchmarks/results/imaging.json. Without --source it draws phantoms.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from brain_mri.imaging.decode import RefusedImage
from brain_mri.imaging.inspect import inspect_scan
from brain_mri.imaging.phantom import write_phantom_folder
from brain_mri.imaging.prepare import PrepareOptions, prepare_scan
from brain_mri.imaging.resize import use_one_thread

SIZE = 224
RESULTS = Path(__file__).parent / "results" / "imaging.json"


def prepare_plainly(content: bytes) -> np.ndarray:
    """Decode, convert and resize as a notebook does."""
    image = Image.open(io.BytesIO(content)).convert("RGB").convert("L")
    return np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BOX))


def prepare(content: bytes) -> np.ndarray:
    """The function that training, evaluation and serving share."""
    return prepare_scan(content, PrepareOptions(image_size=SIZE))


def images_per_second(function: Callable[[bytes], object], contents: list[bytes], runs: int) -> list[float]:
    """Rates of several passes, after one that is not counted."""
    rates = []
    for _ in range(runs + 1):
        started = time.process_time()
        for content in contents:
            function(content)
        rates.append(len(contents) / (time.process_time() - started))
    return rates[1:]


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", type=Path, help="folder of scans; default: phantoms")
    parser.add_argument(
        "--quick", action="store_true", help="300 images and 3 passes, well under two minutes"
    )
    options = parser.parse_args()
    count, runs = (300, 3) if options.quick else (2000, 5)
    use_one_thread()
    with tempfile.TemporaryDirectory() as folder:
        source = options.source or Path(folder) / "phantom"
        if options.source is None:
            write_phantom_folder(source, images=count, seed=1)
        paths = sorted(path for path in source.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
        contents = [path.read_bytes() for path in paths[:: max(1, len(paths) // count)][:count]]
    contents = [content for content in contents if _usable(content)]
    plain = images_per_second(prepare_plainly, contents, runs)
    rows = {"plain: Pillow, colour, box": plain}
    rows["ours: prepare_scan"] = images_per_second(prepare, contents, runs)
    rows["ours: inspect_scan"] = images_per_second(inspect_scan, contents, runs)
    print(
        f"{len(contents)} images of {options.source or 'phantoms'}, {SIZE}×{SIZE}, "
        f"one core, {runs} passes of CPU time"
    )
    print(f"{'':28}{'images/s: min':>14}{'median':>9}{'max':>9}{'ratio':>8}")
    results = {}
    for name, rates in rows.items():
        ratio = statistics.median(rates) / statistics.median(plain)
        results[name] = {"images_per_second": rates, "ratio": ratio}
        print(f"{name:28}{min(rates):14.0f}{statistics.median(rates):9.0f}{max(rates):9.0f}{ratio:8.2f}")
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(
        json.dumps({"images": len(contents), "rows": results}, indent=1) + "\n", encoding="utf-8"
    )


def _usable(content: bytes) -> bool:
    try:
        prepare(content)
    except RefusedImage:
        return False
    return True


if __name__ == "__main__":
    main()
