"""What a student writes in Markdown, as HTML that runs nothing and needs no other file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from sdlab import thumbnails

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token

WIDEST, WIDTH = 1200, 510  # pixels of a student's picture, and of its place: A4 between the margins


def html(text: str, folder: Path) -> str:
    """Markdown as HTML: links run no script, pictures are in it, tags are text but for `<img>` and `<br>`.

    Args:
        text: Markdown.
        folder: where its pictures lie.

    Returns:
        HTML.

    Raises:
        ValueError: a picture isn't there.
    """
    markdown = _markdown()
    tokens = markdown.parse(_with_images(text))
    for token in tokens:
        for child in token.children or []:
            if child.type == "image":
                _take_in(child, folder)
    made = str(markdown.renderer.render(tokens, markdown.options, {}))
    return re.sub(r"&lt;br ?/?&gt;", "<br>", made)


def links(text: str) -> list[str]:
    """Pictures of one's own that a text shows.

    Args:
        text: Markdown.

    Returns:
        Their paths, as written.
    """
    tokens = _markdown().parse(_with_images(text))
    children = [child for token in tokens for child in token.children or []]
    sources = [str(child.attrs["src"]) for child in children if child.type == "image"]
    return [source for source in sources if not re.match(r"[a-z]+:", source)]


def title(text: str) -> tuple[str, str]:
    """Takes the first heading out of a text.

    Args:
        text: Markdown.

    Returns:
        The heading as plain text, and the rest.
    """
    tokens = _markdown().parse(text)
    for index, token in enumerate(tokens):
        if token.type == "heading_open" and token.map:
            lines = text.splitlines()
            rest = lines[: token.map[0]] + lines[token.map[1] :]
            words = "".join(child.content for child in tokens[index + 1].children or [])
            return words, "\n".join(rest).strip()
    return "", text


def _markdown() -> MarkdownIt:
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark", {"html": False}).enable("table")


def _with_images(text: str) -> str:
    """GitHub's way to set a picture's width, `<img src="a.png" width="300">`, as Markdown."""
    return re.sub(r"""<img\b[^>]*?\bsrc=["']([^"'<>]+)["'][^>]*>""", r"![](<\1>)", text)


def _take_in(picture: Token, folder: Path) -> None:
    """The picture's pixels in place of its path; one from the web becomes its description."""
    from urllib.parse import unquote

    from PIL import Image

    source = str(picture.attrs["src"])
    if re.match(r"[a-z]+:", source):
        picture.type, picture.tag, picture.content = "text", "", f"[{picture.content}: {source}]"
        return
    path = folder / unquote(source)
    if not path.is_file():
        raise ValueError(
            f"{path} isn't there, but your text in README.md shows it. Put it there, or correct it."
        )
    image = thumbnails.opened(path)
    image.thumbnail((WIDEST, WIDEST), Image.Resampling.LANCZOS)
    picture.attrs |= {"src": thumbnails.data_uri(image, 85), "width": min(image.width, WIDTH)}
