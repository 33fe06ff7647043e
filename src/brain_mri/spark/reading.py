"""Reading parquet parts of ours as DataFrames."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from brain_mri.spark.session import get_session

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def read_parts(filesystem: Any, folder: str, names: Iterable[str], schema: str) -> DataFrame:
    """The named parts of a folder as a DataFrame; others that lie there are passed over. Nothing is read yet.

    Raises:
        FileNotFoundError: One of them is not there.
    """
    wanted = set(names)
    missing = wanted - {str(entry).rpartition("/")[2] for entry in filesystem.ls(folder, detail=False)}
    if missing:
        raise FileNotFoundError(f"{folder} lacks {', '.join(sorted(missing))}.")
    # A storage root may hold `[`, `{` or `*`, which Spark would glob (its DataSource.GLOB_PATHS_KEY).
    reader = get_session().read.schema(schema).option("__globPaths__", "false")
    # Not a path for each: where their folder looks like a pattern, Spark reads them several times.
    only_named = reader.option("pathGlobFilter", f"{{{','.join(sorted(wanted))}}}")
    return only_named.parquet(filesystem.unstrip_protocol(folder))
