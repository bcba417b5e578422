"""How fast `sdlab prepare` is, beside a plain Pillow open, Lanczos resize and save of the same files.

    python benchmarks/photos.py --photos 200

Both run with two processes' worth of work: prepare in its own threads, limited to two, and Pillow in two
processes. The photos are scikit-image's astronaut in changing surroundings, 12 megapixels, JPEG.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

RESOLUTION = 512
DIFFERENT = 16  # photos that are drawn; the others are copies
MEASURED = """
import json, resource, sys, time
from sdlab.photos import preparation
preparation.MAX_WORKERS = 2
start = time.perf_counter()
dataset = preparation.prepare(sys.argv[1], sys.argv[2], 512, framing=sys.argv[3], progress=False)
seconds = time.perf_counter() - start
usage = resource.getrusage(resource.RUSAGE_SELF)
faces = sum(record["faces"] > 0 for record in dataset.records)
print(json.dumps({"seconds": seconds, "processor": usage.ru_utime + usage.ru_stime,
                  "peak_mb": usage.ru_maxrss / 1024, "images": len(dataset), "faces": faces}))
"""


def photograph(folder: Path, number: int) -> Path:
    """One photo of 4000×3000 pixels with a camera's noise, about 4 MB."""
    from skimage.data import astronaut

    random = np.random.default_rng(number)
    wide = Image.new("RGB", (1000, 750), tuple(int(value) for value in random.integers(40, 200, 3)))
    side = int(random.integers(350, 750))
    person = Image.fromarray(astronaut()).resize((side, side), Image.Resampling.LANCZOS)
    wide.paste(person, (int(random.integers(0, 1000 - side)), int(random.integers(0, 751 - side))))
    pixels = np.asarray(wide.resize((4000, 3000), Image.Resampling.BICUBIC), dtype=np.int16)
    noisy = pixels + random.integers(-9, 10, (3000, 4000, 1), dtype=np.int16)
    path = folder / f"{number:04d}.jpg"
    Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(path, quality=90)
    return path


def plainly(task: tuple[Path, Path]) -> float:
    """Open, resize, save, as any script does it; the processor's seconds that it took."""
    start = time.process_time()
    with Image.open(task[0]) as photo:
        photo.resize((RESOLUTION, RESOLUTION), Image.Resampling.LANCZOS).save(task[1] / f"{task[0].stem}.png")
    return time.process_time() - start


def measure(number: int, framing: str, place: Path) -> dict[str, float]:
    """Both, one after the other, on the same files."""
    raw, plain = place / "raw", place / "plain"
    raw.mkdir()
    plain.mkdir()
    paths = [photograph(raw, index) for index in range(min(number, DIFFERENT))]
    for index in range(len(paths), number):  # bytes after a JPEG's end change its hash and nothing else
        paths.append(raw / f"{index:04d}.jpg")
        paths[-1].write_bytes(paths[index % DIFFERENT].read_bytes() + bytes([index]))
    with ProcessPoolExecutor(2) as pool:
        list(pool.map(plainly, [(paths[0], plain)] * 2))  # the processes start
        start = time.perf_counter()
        processor = sum(pool.map(plainly, [(path, plain) for path in paths]))
        seconds = time.perf_counter() - start
    command = [sys.executable, "-c", MEASURED, str(raw), str(place / "out"), framing]
    seen = json.loads(
        subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1]
    )
    return {
        "photos": number,
        "megabytes_each": round(sum(path.stat().st_size for path in paths) / number / 1e6, 1),
        "faces_found_in": seen["faces"],
        "seconds_a_photo": round(seen["seconds"] / number, 3),
        "plain_seconds_a_photo": round(seconds / number, 3),
        "processor_seconds_a_photo": round(seen["processor"] / number, 3),
        "ratio": round(seen["seconds"] / seconds, 2),
        "ratio_of_processor_time": round(seen["processor"] / processor, 2),
        "peak_mb": round(seen["peak_mb"]),
    }


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=int, default=200)
    parser.add_argument("--framing", default="mixed")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        print(json.dumps(measure(given.photos, given.framing, Path(place)), indent=2))


if __name__ == "__main__":
    main()
