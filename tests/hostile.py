"""Files that a decoder must survive, and a way to decode them all in a process of its own."""

from __future__ import annotations

import json
import random
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

SIZE = (96, 72)
WRITTEN = {
    "jpg": "JPEG",
    "png": "PNG",
    "webp": "WEBP",
    "heic": "HEIF",
    "tiff": "TIFF",
    "bmp": "BMP",
    "gif": "GIF",
}
MODES = (
    *(
        "1",
        "L",
        "P",
        "RGB",
        "RGBA",
        "CMYK",
        "YCbCr",
        "LAB",
        "HSV",
        "I",
        "F",
        "LA",
        "PA",
        "RGBX",
        "RGBa",
        "La",
    ),
    *("I;16", "I;16L", "I;16B"),
)
# What Pillow writes but no camera does: under a photo's name it must be refused.
EXOTIC = ("PPM", "TGA", "ICO", "PCX", "SGI", "EPS", "PDF", "DDS", "IM", "JPEG2000", "ICNS", "SPIDER", "QOI")


def make_all(folder: Path) -> dict[str, list[Path]]:
    """Write all of them; kinds to files."""
    kinds = {
        "whole": dict(_whole(folder)),
        "fuzzed": dict(_fuzzed(folder)),
        "truncated": dict(_truncated(folder)),
        "bomb": dict(_bombs()),
        "wrong": dict(_wrong_names(folder)),
        "mode": dict(_modes(folder)),
        "exotic": dict(_exotic(folder)),
    }
    written: dict[str, list[Path]] = {}
    for kind, files in kinds.items():
        for name, data in files.items():
            path = folder / f"{kind}_{name}"
            path.write_bytes(data)
            written.setdefault(kind, []).append(path)
    return written


def decoded(folder: Path) -> dict[str, Any]:
    """Decode every file of a folder in a process of its own: outcomes, seconds, and peak memory in MB."""
    code = (
        "import json, resource, sys, time\n"
        "from pathlib import Path\n"
        "from sdlab.photos import UnusablePhoto, decode\n"
        "outcomes = {}\n"
        "for path in sorted(Path(sys.argv[1]).iterdir()):\n"
        "    start = time.perf_counter()\n"
        "    try:\n"
        "        photo = decode(path)\n"
        "        said = [photo.image.mode, list(photo.image.size), list(photo.size)]\n"
        "    except UnusablePhoto as reason:\n"
        "        said = str(reason)\n"
        "    outcomes[path.name] = [said, time.perf_counter() - start]\n"
        # ru_maxrss also counts the process that started this one, which is large when all tests run
        "status = Path('/proc/self/status')\n"
        "high = [line.split()[1] for line in status.read_text().splitlines() if line.startswith('VmHWM')] "
        "if status.exists() else [resource.getrusage(resource.RUSAGE_SELF).ru_maxrss]\n"
        "peak = int(high[0]) / 1024\n"
        "print(json.dumps({'outcomes': outcomes, 'peak': peak}))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True
    )
    return dict(json.loads(run.stdout.splitlines()[-1]))


def photo_like() -> Image.Image:
    """A picture with gradients and noise, so that compressed data fills the file."""
    noise = Image.effect_noise(SIZE, 60)
    return Image.merge("RGB", (noise, Image.linear_gradient("L").resize(SIZE), noise.rotate(180)))


def _whole(folder: Path) -> Iterator[tuple[str, bytes]]:
    from pillow_heif import register_heif_opener

    register_heif_opener()
    for ending, name in WRITTEN.items():
        path = folder / f"base.{ending}"
        photo_like().save(path, name)
        data = path.read_bytes()
        path.unlink()
        yield f"base.{ending}", data


def _fuzzed(folder: Path) -> Iterator[tuple[str, bytes]]:
    rng = random.Random(0)
    for name, data in _whole(folder):
        for number in range(30):
            broken = bytearray(data)
            for _ in range(rng.choice((1, 4, 16))):
                broken[rng.randrange(min(len(broken), 400))] = rng.randrange(256)
            yield f"{number:02d}_{name}", bytes(broken)


def _truncated(folder: Path) -> Iterator[tuple[str, bytes]]:
    for name, data in _whole(folder):
        for percent in range(5, 100, 5):
            yield f"{percent:02d}_{name}", data[: len(data) * percent // 100]


def _bombs() -> Iterator[tuple[str, bytes]]:
    def png(width: int, height: int, bits: int, colour: int) -> bytes:
        def chunk(kind: bytes, body: bytes) -> bytes:
            return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

        header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
        rows = zlib.compress(bytes(10_000_000))
        return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")

    yield "grey.png", png(20_000, 20_000, 1, 0)
    yield "rgba16.png", png(30_000, 30_000, 16, 6)
    yield "largest.png", png(2**31 - 1, 2**31 - 1, 8, 2)
    yield "thin.png", png(2**31 - 1, 1, 8, 2)
    yield "below_the_limit.png", png(8_000, 6_290, 16, 6)  # promised, but its data end early
    yield (
        "screen.gif",
        b"GIF89a\xff\xff\xff\xff\x00\x00\x00,\x00\x00\x00\x00\xff\xff\xff\xff\x00\x02\x02L\x01\x00;",
    )
    text = b"tEXt" + b"a\0" + bytes(1000)
    yield "text.png", png(64, 64, 8, 0)[:33] + struct.pack(">I", 2**31 - 1) + text


def _wrong_names(folder: Path) -> Iterator[tuple[str, bytes]]:
    whole = dict(_whole(folder))
    for name, data in whole.items():
        yield f"{name}.jpg", data  # a wrong ending is no fault: the content counts
    others = {"html": b"<!DOCTYPE html><html>", "empty": b"", "zeros": bytes(5000), "text": b"hello\n" * 99}
    others |= {"zip": b"PK\x03\x04" + bytes(99), "pdf": b"%PDF-1.7\n", "exe": b"MZ" + bytes(999)}
    yield from ((f"{name}.jpg", data) for name, data in others.items())


def _modes(folder: Path) -> Iterator[tuple[str, bytes]]:
    for ending, name in WRITTEN.items():
        for mode in MODES:
            path = folder / f"mode.{ending}"
            try:
                image = Image.new(mode, SIZE) if mode not in ("RGB", "L") else photo_like().convert(mode)
                image.save(path, name)
            except (OSError, ValueError, KeyError, TypeError, SystemError):
                continue  # Pillow can't write this mode in this format
            yield f"{mode.replace(';', '_')}.{ending}", path.read_bytes()
            path.unlink()


def _exotic(folder: Path) -> Iterator[tuple[str, bytes]]:
    for name in EXOTIC:
        path = folder / "exotic.bin"
        for mode in ("RGB", "L", "RGBA", "F"):
            try:
                photo_like().convert(mode).save(path, name)
            except (OSError, ValueError, KeyError, TypeError):
                continue
            yield f"{name}_{mode}.jpg", path.read_bytes()
            path.unlink()
            break
