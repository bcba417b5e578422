"""Nothing private is handed in: tokens, paths and EXIF are looked for before anything is written."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath

# Beginnings that the services give their tokens; Civitai's are 32 hexadecimal digits, as MD5 sums are.
TOKENS = {
    "Hugging Face": r"\bhf_[A-Za-z0-9]{16,}",
    "GitHub": r"\b(?:gh[oprsu]_[A-Za-z0-9]{20,}|github_pat_\w{20,})",
    "OpenAI or Anthropic": r"\bsk-[A-Za-z0-9_-]{16,}",
    "AWS": r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    "Google": r"\bAIza[\w-]{30,}",
    "Slack": r"\bxox[abprs]-[\w-]{10,}",
    "Civitai": r"\b[0-9a-fA-F]{32}\b",
    "a web address": r"[?&](?:token|api_key|access_token|key)=[\w.-]{8,}",
}
_SUMS = re.compile(r"md5|checksum|hash|\bsum\b|fingerprint|сумм|хеш|отпечат", re.IGNORECASE)
# What download_and_convert.sh and the hub's library read.
VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "CIVITAI_TOKEN", "CIVITAI_API_KEY", "DOWNLOAD_TOKEN")
# First folders of paths on Linux, macOS, Colab and Kaggle, and those that this machine has.
_USUAL = "home Users root tmp var mnt media opt usr srv etc data content kaggle workspace private Volumes"
_FIRST = "|".join(sorted({*_USUAL.split(), *(re.escape(path.name) for path in Path("/").glob("[!.]*"))}))
_PART = r"[^\s/\\\"'<>|:*?`,;)(\]\[]+"
PATHS = re.compile(
    rf"file://\S+"
    rf"|(?<![\w./:~<-])(?:~|/(?:{_FIRST}))(?:/{_PART})+/?"  # /home/me/photos, ~/photos
    rf"|\b[A-Za-z]:[\\/](?:{_PART}[\\/])*{_PART}"  # C:\Users\me
    rf"|\\\\{_PART}(?:\\{_PART})+"  # \\server\share
)
_DATA = re.compile(r"data:[\w/+.-]+;base64,[A-Za-z0-9+/=]+")


def shortened(text: str) -> str:
    """Text with the last name only of each path on this machine: the rest says who made it."""
    return PATHS.sub(lambda path: _last(path[0]), text)


def check(texts: Mapping[str, str], pictures: Mapping[str, bytes]) -> None:
    """Refuses to hand in what is private.

    Args:
        texts, pictures: file to its content.

    Raises:
        ValueError: a token, a path of this machine, or a picture with metadata; the message says where.
    """
    for file, text in texts.items():
        plain = _DATA.sub("", text)
        for service, pattern in [*TOKENS.items(), *_own_tokens()]:
            for found in re.finditer(pattern, plain):
                near = _near(plain, found.start())
                if service == "Civitai" and _SUMS.search(near):
                    continue
                raise ValueError(
                    f"{file} would hold what looks like a token of {service}: {found[0][:6]}… {near}. Take "
                    "it out, and have the service make a new one: it has been seen. Nothing was written."
                )
        if path := PATHS.search(plain):
            raise ValueError(
                f"{file} would hold a path of this machine: {path[0]} {_near(plain, path.start())}. "
                "Write it from the report's folder, such as pictures/photo.jpg, or leave it out. "
                "Nothing was written."
            )
    for file, content in pictures.items():
        if kinds := metadata(content):
            raise ValueError(
                f"{file} holds {' and '.join(kinds)}, which may say where and when it was taken. Save it "
                "without, such as by a screenshot. Nothing was written."
            )


def metadata(content: bytes) -> list[str]:
    """What a picture's file says beside its pixels: `EXIF`, `XMP`, `comments`."""
    from PIL import Image

    with Image.open(io.BytesIO(content)) as picture:
        picture.load()
        found = {"EXIF": bool(picture.getexif()), "XMP": "xmp" in picture.info}
        found["comments"] = "comment" in picture.info or bool(getattr(picture, "text", {}))
    return [kind for kind, there in found.items() if there]


def _own_tokens() -> list[tuple[str, str]]:
    """Tokens that this process could send somewhere, whatever they look like."""
    known = [(name, os.environ.get(name, "")) for name in VARIABLES]
    return [(name, re.escape(value)) for name, value in known if len(value) >= 8]


def _near(text: str, start: int) -> str:
    """The words before a finding, to find it by."""
    before = " ".join(re.sub(r"<[^>]*>", " ", text[max(0, start - 80) : start]).split())
    return f"after {before[-40:]!r}" if before else "at its beginning"


def _last(path: str) -> str:
    kind = PureWindowsPath if "\\" in path else PurePosixPath
    return kind(path).name
