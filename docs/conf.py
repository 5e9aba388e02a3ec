"""Settings of the site: `make docs` builds it with Sphinx from the Markdown that GitHub shows.

The source folder is the repository's root, so that a link between README, `docs/`, `findings/` and
CHANGELOG is the same on GitHub and on the site, and the build finds each that leads nowhere.
"""

import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("COLUMNS", "80")

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from generated_pages import format_docstring, write_pages  # noqa: E402
from pictures import draw_pictures, take_figure  # noqa: E402

from keras_bn import __version__  # noqa: E402

project = "keras-bn"
author = "the authors of keras-bn"
version = release = __version__

root_doc = "docs/index"
include_patterns = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "findings/README.md", "docs/**"]
exclude_patterns = [
    "docs/generated/gallery/*.ipynb",
    "docs/generated/gallery/*.py",
]
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_gallery.gen_gallery",
]

myst_heading_anchors = 3
suppress_warnings = ["config.cache"]  # functions among the settings of the gallery
default_role = "code"
smartquotes = False
autodoc_typehints = "none"  # docstrings tell types in words
autoclass_content = "both"
napoleon_use_rtype = False

sphinx_gallery_conf = {
    "examples_dirs": [str(HERE.parent / "examples" / "gallery")],
    "gallery_dirs": ["docs/generated/gallery"],
    "filename_pattern": ".*",
    "image_scrapers": (take_figure,),
    "capture_repr": (),
    "show_signature": False,
    "within_subsection_order": "FileNameSortKey",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "show_memory": False,
    "write_computation_times": False,
    "reset_modules": (),
}

html_theme = "furo"
html_title = f"keras-bn {release}"
html_static_path = [str(HERE / "static")]
html_css_files = ["site.css"]
html_extra_path = [str(HERE / "root")]
html_copy_source = False
html_show_copyright = False
html_show_sphinx = False


def setup(app):
    """Write the pages that the program and the packages tell, before Sphinx looks for pages."""
    app.connect(
        "config-inited", lambda app, _: write_pages(Path(app.srcdir) / "docs" / "generated")
    )
    app.connect("source-read", draw_pictures)
    app.connect("autodoc-process-docstring", format_docstring, priority=400)  # napoleon has 500
