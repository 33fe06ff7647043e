"""The process of one worker; a task of `brain_mri.spark.together` starts it with the folder of its orders."""

from __future__ import annotations

import logging
import os
import sys
import threading
import traceback
from pathlib import Path

from brain_mri.spark.together import DIED, SPOKEN, dumps


def main(folder: Path) -> int:
    """Run the function; the exit status tells the task how it went."""
    from pyspark import cloudpickle

    threading.Thread(target=_end_with_the_task, daemon=True).start()
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter(f"{SPOKEN}%(message)s"))
    package = logging.getLogger("brain_mri")
    package.addHandler(handler)
    package.setLevel(logging.INFO)
    function = cloudpickle.loads((folder / "function").read_bytes())
    seat = cloudpickle.loads((folder / "seat").read_bytes())
    try:
        result = function(seat)
    except Exception as error:
        traceback.print_exc()
        error.add_note(f"In the worker:\n{traceback.format_exc()}")  # a traceback does not travel
        if isinstance(error, OSError) or type(error).__module__.startswith("tensorflow"):
            return DIED
        (folder / "failure").write_bytes(dumps(error))
        return 1
    (folder / "result").write_bytes(dumps(result))
    return 0


def _end_with_the_task() -> None:
    sys.stdin.buffer.read()  # until nobody holds the other end
    os._exit(DIED)


if __name__ == "__main__":
    status = main(Path(sys.argv[1]))
    sys.stdout.flush()
    sys.stderr.flush()
    # Whatever the function left running, such as TensorFlow's servers that wait for the others, ends here.
    os._exit(status)
