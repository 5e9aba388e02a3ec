"""Pages in a real browser: what they measure, say and paint. Skips where there is no Chromium."""

import contextlib
import dataclasses
import functools
import html
import http.server
import json
import re
import shutil
import subprocess
import threading
from pathlib import Path

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
    background: getComputedStyle(document.body).backgroundColor,
    missing: performance.getEntriesByType("resource").filter((e) => e.responseStatus >= 400)
      .map((e) => e.name),
    boxes: [...document.querySelectorAll(".area, .area .mark")].map((e) => {
      const box = e.getBoundingClientRect();
      return [e.className, box.x + box.width / 2, box.y + box.height / 2, box.width, box.height];
    }),
  };
  const output = document.createElement("pre");
  output.className = "measured";
  output.title = location.pathname;
  output.hidden = true;
  output.textContent = JSON.stringify(found);
  parent.document.body.append(output);
  console.log("%s");
});
</script>"""
# A window cannot be made narrower than 500 pixels; a frame can.
FRAME = """<!doctype html><meta charset="utf-8"><meta name="color-scheme" content="light dark">
<style>* {{ margin: 0; }} iframe {{ display: block; border: 0; }}</style>
<body>{frames}"""


@dataclasses.dataclass(frozen=True)
class Seen:
    """What a browser made of a page.

    Attributes:
        width: Of the page's frame, in CSS pixels.
        needed: The width that the content needs.
        headings: Texts of the headings on show, in order.
        first: Text of the first element on show.
        background: Of its body, such as "rgb(255, 255, 255)".
        missing: Addresses that the page asked for and a server did not have.
        boxes: Class, centre x, centre y, width and height of the marks in pictures.
        console: What the browser had to say, such as errors and refused requests.
        pixels: The screenshot, shape (height, width, 3), from 0 to 255.
    """

    width: int
    needed: int
    headings: list[str]
    first: str
    background: str
    missing: list[str]
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
    source = folder / "page.html"
    measured = page.replace("style-src", "script-src 'unsafe-inline'; style-src", 1)
    frame = (
        f'<iframe width="{width}" height="{height}" srcdoc="{html.escape(measuring(measured))}">'
    )
    source.write_text(FRAME.format(frames=frame + "</iframe>"), "utf-8")
    dom, console = browse(source.as_uri(), folder, width=width, height=height, dark=dark)
    (found,) = measurements(dom).values()
    shot = tf.io.decode_png(tf.io.read_file(str(folder / "page.png")), channels=3).numpy()
    assert any(LOADED in line for line in console)  # what the page says arrives here
    said = [line for line in console if LOADED not in line]
    return Seen(**found, console=said, pixels=shot[:, :width])


def visit(site, pages, folder, *, width, height=900, dark=False):
    """Load pages of a site, each in a frame, from a server of their own.

    Returns:
        What each page measures, by its path; and what the browser had to say.
    """
    frames = (
        f'<iframe width="{width}" height="{height}" src="/{page}"></iframe>' for page in pages
    )
    with serving(site, FRAME.format(frames="".join(frames))) as address:
        dom, console = browse(address, folder, width=width, height=height, dark=dark)
    return measurements(dom), [line for line in console if LOADED not in line]


def measuring(page):
    """Return a page with the script that measures it."""
    return page.replace("</body>", MEASURE % LOADED + "</body>")


def measurements(dom):
    """Return what the pages of a document measured, by their paths."""
    found = re.findall(r'<pre class="measured" title="([^"]*)" hidden="">(.*?)</pre>', dom, re.S)
    assert found, dom[-500:]
    return {path.lstrip("/"): json.loads(html.unescape(text)) for path, text in found}


@contextlib.contextmanager
def serving(site, frames):
    """Serve a site's files, its pages with the script; and the frames, whose address is given."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self):  # the library calls it so
            path = Path(site, self.path.lstrip("/"))
            if self.path in ("/frames", "/favicon.ico"):
                self.answer(frames if self.path == "/frames" else "")
            elif path.suffix == ".html":
                self.answer(measuring(path.read_text("utf-8")))
            else:
                super().do_GET()

        def answer(self, text):
            body = text.encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *words):
            pass

    handler = functools.partial(Handler, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/frames"
        finally:
            server.shutdown()


def browse(address, folder, *, width, height, dark):
    """Open an address without any other network; return the document and the console's lines."""
    done = subprocess.run(
        [
            find_browser(),
            *"--headless=new --no-sandbox --disable-gpu --hide-scrollbars".split(),
            *"--no-first-run --disable-extensions --disable-background-networking".split(),
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            "--enable-logging=stderr",
            f"--blink-settings=preferredColorScheme={0 if dark else 1}",
            f"--user-data-dir={folder / 'profile'}",
            f"--window-size={max(width, 500)},{height}",
            f"--screenshot={folder / 'page.png'}",
            "--dump-dom",
            address,
        ],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=True,
    )
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def assert_fits(seen, width, *, dark):
    """Assert that a page needs no more than its width, and is as dark as asked, without a word."""
    assert seen.console == []
    assert seen.needed == seen.width == width
    assert np.median(seen.pixels) < 60 if dark else np.median(seen.pixels) > 220
