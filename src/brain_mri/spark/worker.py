"""The process of one worker; `brain_mri.spark.processes` starts it with the folder of its orders."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import threading
import traceback
from pathlib import Path

from brain_mri.spark.processes import DIED, SPOKEN, dumps


def main(folder: Path) -> int:
    """Run the function; the exit status tells the task how it went."""
    from pyspark import cloudpickle

    threading.Thread(target=_end_with_the_task, args=(folder,), daemon=True).start()
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
        if _may_be_of_others(error):
            return DIED
        (folder / "failure").write_bytes(_pickled(error))
        return 1
    (folder / "result").write_bytes(dumps(result))
    return 0


def _may_be_of_others(error: Exception) -> bool:
    """Whether another worker, or what the machine does beside, may have caused an error."""
    return (
        isinstance(error, ConnectionError | MemoryError)
        or type(error).__module__.startswith("tensorflow")
        or bool(getattr(error, "start_again", False))
    )


def _pickled(error: Exception) -> bytes:
    """An error with its traceback as a note, since a traceback does not travel; or that as another error."""
    from pyspark import cloudpickle

    said = f"In the worker:\n{traceback.format_exc()}"
    error.add_note(said)
    try:
        content = dumps(error)
        cloudpickle.loads(content)
    except Exception:  # some errors cannot be made anew from what they were pickled as
        return dumps(RuntimeError(said))
    return content


def _end_with_the_task(folder: Path) -> None:
    sys.stdin.buffer.read()  # until nobody holds the other end
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(DIED)


if __name__ == "__main__":
    status = main(Path(sys.argv[1]))
    sys.stdout.flush()
    sys.stderr.flush()
    # Whatever the function left running, such as TensorFlow's servers that wait for the others, ends here.
    os._exit(status)
