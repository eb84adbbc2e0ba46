"""Renders Markdown from templates, and a self-contained HTML page from Markdown and figures."""

import base64
import html
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markdown_it import MarkdownIt

from src.core.formatting import duration, short
from src.verdict import tables

FIGURES = "figures"  # the folder that documents refer to
STYLE = (
    "body{font:15px/1.55 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem;color:#1c2430}"
    "table{border-collapse:collapse;margin:1rem 0;display:block;overflow-x:auto}th,td{padding:.3rem .8rem;"
    "border-bottom:1px solid #d5dbe3;text-align:left}td[style*=right]{white-space:nowrap}img{max-width:100%}"
    "code{background:#f3f5f8;padding:.1rem .3rem}pre code{display:block;padding:.7rem;overflow-x:auto}"
    "blockquote{margin:1rem 0;padding:.2rem 1rem;border-left:4px solid #0072b2;background:#f3f8fc}"
)


def render_template(template: str, **facts: Any) -> str:
    """Render a template of this folder as Markdown. A variable that is missing is an error."""
    text = _environment().get_template(template).render(**facts)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def to_html(markdown: str, title: str, figures: Mapping[str, str]) -> str:
    """A page without external files. `figures` (name -> SVG) replace `![...](figures/<name>.svg)`.

    HTML in the text is escaped, since it may come from data.
    """
    body = MarkdownIt("js-default", {"linkify": False}).render(markdown)
    for name, svg in figures.items():
        packed = base64.b64encode(svg.encode()).decode()
        body = body.replace(f'src="{FIGURES}/{name}.svg"', f'src="data:image/svg+xml;base64,{packed}"')
    return (
        f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{html.escape(title)}</title>"
        f"<style>{STYLE}</style>{body}</html>\n"
    )


@lru_cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, keep_trailing_newline=True, autoescape=False,
    )  # fmt: skip
    environment.filters |= {
        "short": short,
        "duration": duration,
        "points": lambda v: f"{v:.4f}",
        "plain": tables.escape_markdown,
    }
    environment.globals |= {"table": tables.markdown_table, "signed": tables.signed_interval}
    return environment
