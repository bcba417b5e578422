"""What a student writes in Markdown, as HTML that runs nothing and as nodes for templates/pages.typ."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from sdlab import thumbnails

if TYPE_CHECKING:
    from markdown_it.token import Token
    from markdown_it.tree import SyntaxTreeNode

WIDEST, WIDTH, WIDTH_MM = 1200, 510, 180  # pixels of a student's picture, and its place on a page


def html(text: str, folder: Path) -> str:
    """Markdown as HTML: links run no script, pictures are in it, tags are text but for `<img>` and `<br>`."""
    tokens = _with_pictures(text, folder)
    for image in _images(tokens):
        picture = image.meta["picture"]
        uri = thumbnails.data_uri(picture, 85)
        image.attrs |= {"src": uri, "width": min(picture.width, WIDTH)}
    made = str(_parser().renderer.render(tokens, _parser().options, {}))
    return re.sub(r"&lt;br ?/?&gt;", "<br>", made)


def nodes(text: str, folder: Path) -> list[dict[str, Any]]:
    """Markdown as a tree of dictionaries."""
    from markdown_it.tree import SyntaxTreeNode

    def plain(node: SyntaxTreeNode) -> dict[str, Any]:
        if node.type == "image":
            picture = node.meta["picture"]
            width = min(WIDTH_MM, picture.width * 0.26)
            return {"type": "image", "picture": picture, "width": width}
        return {"type": node.type, "text": node.content, "children": [plain(one) for one in node.children]}

    return [plain(node) for node in SyntaxTreeNode(_with_pictures(text, folder)).children]


def links(text: str) -> list[str]:
    """Pictures of one's own that a text shows, as paths that it wrote."""
    sources = [str(image.attrs["src"]) for image in _images(_tokens(text))]
    return [source for source in sources if not _elsewhere(source)]


def title(text: str) -> tuple[str, str]:
    """The first heading of a text as plain text, and the rest."""
    tokens = _tokens(text)
    for index, token in enumerate(tokens):
        if token.type == "heading_open" and token.map:
            lines = text.splitlines()
            rest = lines[: token.map[0]] + lines[token.map[1] :]
            words = "".join(child.content for child in tokens[index + 1].children or [])
            return words, "\n".join(rest).strip()
    return "", text


def _parser() -> Any:
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark", {"html": False}).enable("table")


def _tokens(text: str) -> list[Token]:
    """GitHub's way to set a picture's width, `<img src="a.png" width="300">`, is read as a picture."""
    images = r"""<img\b[^>]*?\bsrc=["']([^"'<>]+)["'][^>]*>"""
    return list(_parser().parse(re.sub(images, r"![](<\1>)", text)))


def _images(tokens: list[Token]) -> list[Token]:
    return [child for token in tokens for child in token.children or [] if child.type == "image"]


def _elsewhere(source: str) -> bool:
    return bool(re.match(r"[a-z]+:", source))


def _with_pictures(text: str, folder: Path) -> list[Token]:
    """The text's tokens with its pictures opened; one that lies on the web is named in words."""
    tokens = _tokens(text)
    for image in _images(tokens):
        source = str(image.attrs["src"])
        path = folder / unquote(source)
        if _elsewhere(source):
            image.type, image.tag, image.content = "text", "", f"[{image.content}: {source}]"
        elif not path.is_file():
            raise ValueError(
                f"{path} isn't there, but your text in README.md shows it. Put it there, or correct it."
            )
        else:
            image.meta["picture"] = thumbnails.opened(path)
            image.meta["picture"].thumbnail((WIDEST, WIDEST))
    return tokens
