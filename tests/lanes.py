"""Tests in two lanes at the same time: those of daemons wait while the others compute.

    python -m tests.lanes [-m MARKERS] [OPTIONS OF PYTEST]

What the daemons' lane prints is shown when it has ended.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile


def main(options: list[str]) -> int:
    """Run both lanes; 0 if all tests passed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("-m", dest="markers", help="which tests, as pytest takes it; default all")
    given, others = parser.parse_known_args(options)
    also = f" and ({given.markers})" if given.markers else ""
    pytest = [sys.executable, "-m", "pytest", *others]
    with tempfile.TemporaryFile("w+", encoding="utf-8") as said:
        cache = "cache_dir=.pytest_cache/daemons"
        daemons = subprocess.Popen(
            [*pytest, "-m", f"cluster{also}", "-o", cache], stdout=said, stderr=subprocess.STDOUT
        )
        computing = subprocess.Popen([*pytest, "-m", f"not cluster{also}"])
        statuses = []
        for lane in (computing, daemons):
            while lane.poll() is None:
                try:
                    lane.wait()
                except KeyboardInterrupt:  # a terminal tells the lanes as well
                    continue
            statuses.append(lane.returncode)
        said.seek(0)
        sys.stdout.write(said.read())
    return int(any(statuses))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
