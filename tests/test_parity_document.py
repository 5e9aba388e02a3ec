import json

import pytest
from parity_reports import FOLD, LATENCY, document, layers, output


@pytest.mark.parametrize(("error", "verdict"), [(2e-7, "agrees"), (2e-3, "differs")])
def test_verdict_is_that_of_the_report(error, verdict):
    assert document(output(error)).verdict == verdict
    assert document(output(error)).to_dict()["verdict"] == verdict


def test_document_turns_into_json_with_all_its_parts():
    made = document(fold=FOLD, latency=LATENCY, layers=layers(2))
    data = json.loads(json.dumps(made.to_dict(), allow_nan=False))
    assert data["report"]["passed"] is True
    assert data["report"]["layers"][1]["layer"] == "stage_0/block_1/conv"
    assert data["model"] == {"path": "runs/net.keras", "bytes": 12345, "sha256": "ab" * 32}
    assert data["fold"]["refusals"][0]["reason"] == "the tensor is a graph output"
    assert [row["median"] for row in data["latency"]["timings"]] == [2.0, 3.0]
    assert data["command"].startswith("keras-bn check")
    assert data["created"] == "2025-01-01 00:00 UTC"


def test_what_is_unknown_or_not_finite_is_none():
    data = document(output(float("inf"))).to_dict()
    assert data["fold"] is data["latency"] is None
    assert data["report"]["outputs"][0]["onnx"]["max"] is None
    json.dumps(data, allow_nan=False)
