"""A picture is of the code that is shown, and stands behind it."""

import sys
import types

import pytest

from tests.docs.pages import ROOT

sys.path.insert(0, str(ROOT / "docs"))

import pictures

PAGE = """Text.

```python picture: a line that rises
import matplotlib.pyplot as plt

figure, axes = plt.subplots()
axes.plot([0, 1])
```

```python
plain = 1
```
"""


def drawn(page, folder):
    content = [page]
    pictures.draw_pictures(types.SimpleNamespace(srcdir=folder), "docs/page", content)
    return content[0]


def test_picture_stands_behind_its_code(tmp_path):
    text = drawn(PAGE, tmp_path)
    (file,) = (tmp_path / "docs" / "generated" / "pictures").iterdir()
    shown = f"```\n\n![a line that rises](/docs/generated/pictures/{file.name})\n\n```python\nplain"
    assert shown in text
    assert "picture:" not in text
    assert "axes.plot([0, 1])" in text
    first = file.read_bytes()
    assert b"<svg" in first
    drawn(PAGE, tmp_path)
    assert file.read_bytes() == first


def test_code_that_draws_nothing_stops_the_build(tmp_path):
    with pytest.raises(KeyError, match="figure"):
        drawn("```python picture: none\nx = 1\n```\n", tmp_path)
    with pytest.raises(ZeroDivisionError):
        drawn("```python picture: none\n1 / 0\n```\n", tmp_path)
