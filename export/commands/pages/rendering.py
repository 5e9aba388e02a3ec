"""A template in `templates/` and its values -> an HTML page that needs nothing else.

No network, no scripts, no other file: `base.html.j2` forbids them to the browser too. Every text is
escaped, because a stranger may have named the layers.
"""

import importlib.resources

import jinja2

from .figures import error_figure, figure, percent

__all__ = ["render"]


def render(template: str, **values: object) -> str:
    """Return a page.

    Args:
        template: Name of a file in `templates/`.
        values: What it shows, by the names that it uses.

    Returns:
        The whole page, in UTF-8 as it declares.
    """
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_source),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"figure": figure, "percent": percent, "error": error_figure}
    return environment.get_template(template).render(values)


def _source(name: str) -> str:
    folder = importlib.resources.files(__package__).joinpath("templates")
    return folder.joinpath(name).read_text("utf-8")
