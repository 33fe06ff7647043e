"""What made an output."""

from __future__ import annotations

from pathlib import Path

from kedro.pipeline import node

from brain_mri.storage.provenance import Provenance, expected_fingerprints


def _nodes():  # type: ignore[no-untyped-def]
    first = node(lambda raw, options: raw, ["raw", "params:ingestion"], "scans@packed", name="pack")
    second = node(lambda scans: scans, ["scans@spark"], "inputs", name="prepare")
    return [first, second]


def test_a_parameter_changes_everything_made_from_it(tmp_path: Path) -> None:
    provenance = Provenance(str(tmp_path))
    one = expected_fingerprints(_nodes(), {"raw": "a", "params:ingestion": {"seed": 1}}, provenance)
    two = expected_fingerprints(_nodes(), {"raw": "a", "params:ingestion": {"seed": 2}}, provenance)
    again = expected_fingerprints(_nodes(), {"raw": "a", "params:ingestion": {"seed": 1}}, provenance)
    assert one == again
    assert one.keys() == two.keys() == {"scans", "inputs"}
    assert one["scans"] != two["scans"]
    assert one["inputs"] != two["inputs"]


def test_a_later_pipeline_continues_from_what_was_recorded(tmp_path: Path) -> None:
    provenance = Provenance(str(tmp_path))
    whole = expected_fingerprints(_nodes(), {"raw": "a", "params:ingestion": {}}, provenance)
    provenance.record("scans", whole["scans"])
    assert expected_fingerprints(_nodes()[1:], {}, provenance)["inputs"] == whole["inputs"]


def test_unknown_outputs_have_no_fingerprint(tmp_path: Path) -> None:
    assert Provenance(str(tmp_path)).recorded("scans") is None
