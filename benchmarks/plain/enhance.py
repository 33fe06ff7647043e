"""Enhance photographs file by file with OpenCV, in so many processes, nothing around it.

python benchmarks/plain/enhance.py FOLDER OUTPUT METHOD PROCESSES
"""

from __future__ import annotations

import multiprocessing
import sys
from functools import partial
from pathlib import Path

from brain_mri.imaging.resize import use_one_thread
from brain_mri.imaging.retina import EnhanceOptions, enhance_photograph
from brain_mri.imaging.vessels import VesselOptions


def enhance(path: Path, source: Path, output: Path, method: str) -> None:
    """Enhance one photograph and write two pictures."""
    use_one_thread()
    made = enhance_photograph(path.read_bytes(), EnhanceOptions(vessels=VesselOptions(method=method)))
    target = output / path.relative_to(source).with_suffix("")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.with_name(f"{target.name}.enhanced.png").write_bytes(made.enhanced)
    target.with_name(f"{target.name}.vessels.png").write_bytes(made.vessels)


def main() -> None:
    """Enhance all."""
    source, output, method, processes = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    paths = sorted(path for path in source.rglob("*") if path.is_file())
    one = partial(enhance, source=source, output=output, method=method)
    if processes == 1:
        for path in paths:
            one(path)
        return
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        pool.map(one, paths, chunksize=4)


if __name__ == "__main__":
    main()
