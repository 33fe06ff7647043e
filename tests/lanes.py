"""Every test, in two lanes at the same time: those of daemons wait while the others compute.

    python -m tests.lanes [OPTIONS OF PYTEST]

What the daemons' lane prints is shown when it has ended.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile


def main(options: list[str]) -> int:
    """Run both lanes; 0 if all tests passed."""
    pytest = [sys.executable, "-m", "pytest", *options]
    with tempfile.TemporaryFile("w+", encoding="utf-8") as said:
        cache = "cache_dir=.pytest_cache/daemons"
        daemons = subprocess.Popen(
            [*pytest, "-m", "cluster", "-o", cache], stdout=said, stderr=subprocess.STDOUT
        )
        computing = subprocess.Popen([*pytest, "-m", "not cluster"])
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
