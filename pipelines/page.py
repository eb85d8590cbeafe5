"""A template and what it shows to a page of HTML that fetches nothing; whatever is shown is escaped."""

from __future__ import annotations

from pathlib import Path


def page(template: Path, **content: object) -> str:
    """The page as HTML. Raises UndefinedError for what the template asks and nobody gave."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(template.parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template.name).render(content)
