"""Images made elsewhere: what A1111 and ComfyUI wrote into them, and 2×2 grids taken apart."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import Image

_USER_COMMENT = 0x9286  # where A1111 writes into JPEG and WebP
_EXIF = 0x8769
_UNKNOWN = {
    **dict.fromkeys(["prompt", "negative_prompt", "sampler", "model"], ""),
    **{"seed": -1, "num_inference_steps": 0, "guidance_scale": 0.0},
}
_SEAM = 3.0  # a grid's middle line differs by so many times the median line's difference


def parameters(image: Image.Image) -> dict[str, Any]:
    """How an image was made, under the names of our records; `elsewhere` is the program, as far as known."""
    info = image.info
    if (text := info.get("parameters") or _user_comment(image)) and "Steps: " in text:
        return {"elsewhere": "A1111"} | _of_a1111(text)
    try:
        return {"elsewhere": "ComfyUI"} | _of_comfyui(json.loads(info["prompt"]))
    except (LookupError, ValueError, TypeError, AttributeError, StopIteration, ArithmeticError):
        return {"elsewhere": "another program"} | _UNKNOWN


def _user_comment(image: Image.Image) -> str:
    raw = image.getexif().get_ifd(_EXIF).get(_USER_COMMENT, b"")
    if not isinstance(raw, bytes) or not raw.startswith(b"UNICODE\0"):
        return ""
    return raw[8:].decode("utf-16-be" if raw[8:9] == b"\0" else "utf-16-le", errors="replace")


def _of_a1111(text: str) -> dict[str, Any]:
    """The prompt's lines, `Negative prompt: …`, a last line `Steps: 20, Sampler: Euler a, CFG scale: 7`."""
    said, _, last = text.rpartition("\nSteps: ")
    values = dict(re.findall(r'\s*([\w ]+): ("[^"]*"|[^,]*)(?:,|$)', f"Steps: {last}"))
    prompt, _, negative = said.partition("\nNegative prompt: ")
    return {
        "prompt": prompt.strip(),
        "negative_prompt": negative.strip(),
        "num_inference_steps": int(_number(values.get("Steps"), 0)),
        "guidance_scale": _number(values.get("CFG scale"), 0),
        "seed": int(_number(values.get("Seed"), -1)),
        "sampler": (values.get("Sampler") or "").strip(),
        "model": (values.get("Model") or values.get("Model hash") or "").strip(),
    }


def _number(text: str | None, otherwise: float) -> float:
    try:
        value = float(text or "")
    except ValueError:
        return otherwise
    return value if math.isfinite(value) else otherwise


def _of_comfyui(nodes: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """A graph of nodes; the sampler's inputs link to those that hold prompts and model."""
    sampler = next(node["inputs"] for node in nodes.values() if "KSampler" in node["class_type"])
    models = (node["inputs"].get("ckpt_name") for node in nodes.values())
    return {
        "prompt": _linked_text(nodes, sampler.get("positive")),
        "negative_prompt": _linked_text(nodes, sampler.get("negative")),
        "num_inference_steps": int(sampler.get("steps", 0)),
        "guidance_scale": float(sampler.get("cfg", 0)),
        "seed": int(sampler.get("seed", sampler.get("noise_seed", -1))),
        "sampler": str(sampler.get("sampler_name", "")),
        "model": next((str(name) for name in models if name), ""),
    }


def _linked_text(nodes: Mapping[str, Mapping[str, Any]], value: Any, depth: int = 0) -> str:
    """The first text behind a link, which is a node's number and one of its outputs."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list) or str(value[0]) not in nodes or depth > len(nodes):
        return ""
    inputs = nodes[str(value[0])]["inputs"]
    behind = [inputs["text"]] if "text" in inputs else list(inputs.values())
    found = (_linked_text(nodes, one, depth + 1) for one in behind if isinstance(one, list | str))
    return next((text for text in found if text), "")


def tiles(image: Image.Image) -> list[Image.Image]:
    """The four images of a 2×2 grid, by row; the image alone where no seams run through its middle."""
    import numpy as np

    width, height = image.size
    grey = np.asarray(image.convert("L"), dtype=float)
    for one in (grey, grey.T):
        steps = np.abs(np.diff(one, axis=1)).mean(axis=0)
        middle = steps[one.shape[1] // 2 - 1] if len(steps) else 0
        if not middle > _SEAM * max(float(np.median(steps)), 0.5):
            return [image]
    w, h = width // 2, height // 2
    return [image.crop((x, y, x + w, y + h)) for y in (0, height - h) for x in (0, width - w)]
