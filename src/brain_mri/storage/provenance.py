"""What made an output: so that a resumed run never builds on something that other parameters made.

Every output of a node gets a fingerprint of the node, its parameters and the fingerprints of its other
inputs. It is worked out before the run, from the pipeline alone, and kept beside the data when the output has
been saved.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Protocol

from brain_mri.storage.files import open_filesystem, read_file, remove, write_file


class NodeLike(Protocol):
    """What provenance reads of a Kedro node."""

    @property
    def name(self) -> str:
        """Name of the node, unique in its pipeline."""

    @property
    def inputs(self) -> list[str]:
        """Names of its inputs, datasets and parameters, with transcoding."""

    @property
    def outputs(self) -> list[str]:
        """Names of its outputs, with transcoding."""


class Provenance:
    """The fingerprints of the outputs under one storage root, a small file each.

    Example:
        >>> provenance = Provenance("data")
        >>> provenance.record("manifest", "9f86d081")
        >>> provenance.recorded("manifest")
        '9f86d081'
    """

    def __init__(self, root: str) -> None:
        self._filesystem, path = open_filesystem(root)
        self._folder = f"{path}/.provenance"

    def record(self, name: str, fingerprint: str) -> None:
        """Keep the fingerprint of an output that has just been saved, or that is about to appear."""
        write_file(self._filesystem, f"{self._folder}/{name}.json", json.dumps(fingerprint).encode())

    def forget(self, name: str) -> None:
        """Remove the fingerprint of an output that is about to be replaced by another one."""
        remove(self._filesystem, f"{self._folder}/{name}.json")

    def recorded(self, name: str) -> str | None:
        """The fingerprint of an output as it was saved, or None where nothing is known."""
        try:
            return str(json.loads(read_file(self._filesystem, f"{self._folder}/{name}.json")))
        except FileNotFoundError:
            return None


def expected_fingerprints(
    nodes: Iterable[NodeLike], values: Mapping[str, object], provenance: Provenance
) -> dict[str, str]:
    """Work out what the outputs of a pipeline would be made of if it ran now.

    Args:
        nodes: The nodes in topological order.
        values: Values known before the run, by input name: parameters, and the identity of the source.
        provenance: Tells the fingerprint of inputs that an earlier run made.

    Returns:
        Fingerprint (hexadecimal sha256) of every output by its name without transcoding (`scans`, not
        `scans@spark`).
    """
    known: dict[str, str] = {}
    for node in nodes:
        ingredients: dict[str, object] = {}
        for full_name in node.inputs:
            name = full_name.split("@")[0]
            ingredients[name] = (
                values[name] if name in values else known.get(name) or provenance.recorded(name)
            )
        text = json.dumps([node.name, ingredients], sort_keys=True, default=str)
        fingerprint = hashlib.sha256(text.encode()).hexdigest()
        for full_name in node.outputs:
            name = full_name.split("@")[0]
            known[name] = hashlib.sha256(f"{fingerprint}:{name}".encode()).hexdigest()
    return known
