import pytest

from keras_bn.export.runtime import arena


@pytest.mark.parametrize(
    ("content", "expected"), [("1000", 1000), ("max", 5000), ("9223372036854771712", 5000)]
)
def test_limit_of_a_container_counts(tmp_path, monkeypatch, content, expected):
    limit = tmp_path / "memory.max"
    limit.write_text(content)
    monkeypatch.setattr(arena, "LIMITS", (limit, tmp_path / "missing"))
    monkeypatch.setattr("os.sysconf", {"SC_PHYS_PAGES": 50, "SC_PAGE_SIZE": 100}.get)
    assert arena._memory() == expected
