"""The command that repeats a run, from what was recorded with its outputs."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from typing import Any

from omegaconf import OmegaConf

_PLAIN = re.compile(r"[\w/][\w /.+-]*")  # text without a character that YAML takes for its own


def run_settings(
    split_metadata: Mapping[str, Any],
    preprocessing_stats: Mapping[str, Any],
    model_metadata: Mapping[str, Any],
) -> dict[str, Any]:
    """Return every setting that the results depend on, by its dotted name, as it was recorded with them.

    What "auto" and an unnamed source stood for is in its place. So the page is true also where reporting runs
    later, under other parameters.
    """
    source = split_metadata["source"]
    ingestion = dict(split_metadata["parameters"])
    if not (source["synthetic"] and ingestion["source"] is None):  # the run drew no phantoms of its own
        ingestion |= {"source": source["url"]}
        del ingestion["phantom"]
    names = ("backbone", "weights", "recipe", "precision", "seed")
    decided = {key: model_metadata[key] for key in names if key in model_metadata}
    sections = {
        "ingestion": ingestion,
        "preprocessing": preprocessing_stats["parameters"],
        "training": {**model_metadata.get("training_parameters", {}), **decided},
    }
    return _flatten(sections)


def repeat_command(settings: Mapping[str, Any]) -> str:
    """Return the command that repeats a run with these settings, whatever the configuration files say then.

    Example:
        >>> repeat_command({"ingestion.seed": 20, "training.weights": None})
        'kedro run --params=ingestion.seed=20,training.weights=null'
    """
    written = [f"{name}={_write(value)}" for name, value in settings.items() if _is_writable(value)]
    return "kedro run --params=" + shlex.quote(",".join(written))


def unwritable_settings(settings: Mapping[str, Any]) -> str:
    """Return as lines of YAML what `--params` cannot carry: lists, and text with commas, at which it splits.

    Example:
        >>> print(unwritable_settings({"ingestion.seed": 20, "ingestion.classes": ["normal", "tumour"]}))
        ingestion:
          classes:
          - normal
          - tumour
    """
    values = OmegaConf.create()
    for name, value in settings.items():
        if not _is_writable(value):
            OmegaConf.update(values, name, value)
    return OmegaConf.to_yaml(values).strip() if values else ""


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted names of everything that is no mapping itself."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        flat |= _flatten(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return flat


def _is_writable(value: Any) -> bool:
    return not isinstance(value, list | tuple) and "," not in str(value)


def _write(value: Any) -> str:
    """A value as `--params` reads it; text that would be read as something else is quoted."""
    if isinstance(value, str) and _PLAIN.fullmatch(value):
        read = OmegaConf.from_dotlist([f"value={value}"])[
            "value"
        ]  # as Kedro does: "12" and "null" are no text
        if read == value:
            return value
    return json.dumps(value, ensure_ascii=False)
