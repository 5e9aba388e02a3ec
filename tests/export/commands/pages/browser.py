"""A page in a real browser: what it measures, says and paints. Skips where there is no Chromium."""

import dataclasses
import html
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
import tensorflow as tf

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
SECONDS = 60
LOADED = "the page has loaded"
MEASURE = """<script>
addEventListener("load", () => {
  const shown = [...document.querySelectorAll("body *")].filter((e) => e.checkVisibility());
  const found = {
    width: innerWidth,
    needed: document.documentElement.scrollWidth,
    headings: shown.filter((e) => /^H[1-6]$/.test(e.tagName)).map((e) => e.innerText),
    first: shown[0].innerText,
    boxes: [...document.querySelectorAll(".area, .area .mark")].map((e) => {
      const box = e.getBoundingClientRect();
      return [e.className, box.x + box.width / 2, box.y + box.height / 2, box.width, box.height];
    }),
  };
  const output = document.createElement("pre");
  output.id = "measured";
  output.hidden = true;
  output.textContent = JSON.stringify(found);
  parent.document.body.append(output);
  console.log("%s");
});
</script>"""
# A window cannot be made narrower than 500 pixels; a frame can.
FRAME = """<!doctype html><meta charset="utf-8"><meta name="color-scheme" content="light dark">
<style>* {{ margin: 0; }} iframe {{ display: block; border: 0; }}</style>
<body><iframe width="{width}" height="{height}" srcdoc="{page}"></iframe>"""


@dataclasses.dataclass(frozen=True)
class Seen:
    """What a browser made of a page.

    Attributes:
        width: Of the page's frame, in CSS pixels.
        needed: The width that the content needs.
        headings: Texts of the headings on show, in order.
        first: Text of the first element on show.
        boxes: Class, centre x, centre y, width and height of the marks in pictures.
        console: What the browser had to say, such as errors and refused requests.
        pixels: The screenshot, shape (height, width, 3), from 0 to 255.
    """

    width: int
    needed: int
    headings: list[str]
    first: str
    boxes: list[list]
    console: list[str]
    pixels: np.ndarray


def find_browser():
    """Return Chromium's path, or skip the test."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip(f"needs a browser on PATH, one of: {', '.join(NAMES)}")
    return found


def look(page, folder, *, width, height=900, dark=False):
    """Load a page without network, with a script that measures it added; return what is seen."""
    browser = find_browser()
    source, shot = folder / "page.html", folder / "page.png"
    measured = page.replace("style-src", "script-src 'unsafe-inline'; style-src", 1)
    measured = measured.replace("</body>", MEASURE % LOADED + "</body>")
    frame = FRAME.format(width=width, height=height, page=html.escape(measured))
    source.write_text(frame, "utf-8")
    done = subprocess.run(
        [
            browser,
            *"--headless=new --no-sandbox --disable-gpu --hide-scrollbars".split(),
            *"--no-first-run --disable-extensions --disable-background-networking".split(),
            "--host-resolver-rules=MAP * ~NOTFOUND",
            "--enable-logging=stderr",
            f"--blink-settings=preferredColorScheme={0 if dark else 1}",
            f"--user-data-dir={folder / 'profile'}",
            f"--window-size={max(width, 500)},{height}",
            f"--screenshot={shot}",
            "--dump-dom",
            source.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=True,
    )
    found = re.search(r'<pre id="measured" hidden="">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stdout[-500:] + done.stderr[-500:]
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert any(LOADED in line for line in console)  # what the page says arrives here
    return Seen(
        **json.loads(html.unescape(found[1])),
        console=[line for line in console if LOADED not in line],
        pixels=tf.io.decode_png(tf.io.read_file(str(shot)), channels=3).numpy()[:, :width],
    )


def assert_fits(seen, width, *, dark):
    """Assert that a page needs no more than its width, and is as dark as asked, without a word."""
    assert seen.console == []
    assert seen.needed == seen.width == width
    assert np.median(seen.pixels) < 60 if dark else np.median(seen.pixels) > 220
