"""Killed at any instant or out of disk, and started again, a run ends with the same weights, bit for bit."""

from __future__ import annotations

import hashlib
import multiprocessing
import random
import shutil
import subprocess
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from safetensors.torch import load_file

from sdlab.experiment import DreamBooth, Experiment, LoRA
from sdlab.files import DiskFull, file_sha256
from sdlab.training import checkpoint, train

resource = pytest.importorskip("resource", reason="needs SIGKILL, fork and limits, which Windows has not")

pytestmark = pytest.mark.slow
Short = Callable[..., DreamBooth | LoRA]

# One process imports everything, and each run is a fork of it: 1 s instead of 7.
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["sdlab.training.loop", "sdlab.images"])

SEED, KILLS = 31, 50
STEPS, INTERVAL = 5, 2
NOT_LOOKED_AT = {"num_held_out_images": 0}  # a validation takes longer than a step
LOOKED_AT = {"num_held_out_images": 1, "num_validation_images": 1, "validation_prompt": "a woman"}
# Where a kill falls: anywhere, or just after these files of the experiment were written (save, export).
ANYWHERE = ("", "", "", "checkpoints/.step_*.partial", ".*.partial/*")
KINDS = {
    "dreambooth": ("dreambooth", ANYWHERE, NOT_LOOKED_AT),
    "lora": ("lora", ANYWHERE, NOT_LOOKED_AT),
    "lora_looked_at": ("lora", (*ANYWHERE, "validation/*", "validation/*"), LOOKED_AT),
}
THEIR_OWN = ("experiment.json", "log.jsonl", "README.md")  # times, and the experiment's name


def start(name: str, chosen: DreamBooth | LoRA) -> BaseProcess:
    process = SERVER.Process(target=train, args=(name, chosen), kwargs={"progress": False})
    process.start()
    return process


def killed(process: BaseProcess, folder: Path, phase: str, delay: float) -> bool:
    """Kills a run `delay` seconds after its start or a phase's; False if it ended before."""
    began = time.time()
    while phase and process.is_alive() and not written(folder, phase, began):
        time.sleep(0.001)
    process.join(delay)
    process.kill()
    process.join()
    return process.exitcode != 0


def written(folder: Path, pattern: str, since: float) -> bool:
    with suppress(FileNotFoundError):  # files come and go
        return any(path.stat().st_mtime >= since for path in folder.glob(pattern))
    return False


def run_whole(name: str, chosen: DreamBooth | LoRA) -> float:
    """The seconds of an uninterrupted run."""
    began = time.perf_counter()
    process = start(name, chosen)
    process.join()
    assert process.exitcode == 0
    return time.perf_counter() - began


def contents(folder: Path) -> dict[str, str]:
    """The hash of each file that must come out the same; of weights without the header: its order varies."""

    def digest(path: Path) -> str:
        if path.name in THEIR_OWN:
            return ""
        if path.suffix != ".safetensors":
            return file_sha256(path)
        weights = sorted(load_file(path).items())
        return hashlib.sha256(
            b"".join(name.encode() + value.numpy().tobytes() for name, value in weights)
        ).hexdigest()

    return {str(path.relative_to(folder)): digest(path) for path in folder.rglob("*") if path.is_file()}


def kept_steps(experiment: Experiment) -> int:
    """The steps in the newest checkpoint; a kill never leaves one that is ignored."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        newest = checkpoint.find(experiment.checkpoints_folder)
    return int(newest.name.removeprefix("step_")) if newest else 0


def check_little_is_lost(experiment: Experiment, before: int) -> int:
    """The steps that a run goes on from are at most an interval back, and never go back."""
    log = experiment.log()  # each save comes right after a row
    kept = kept_steps(experiment)
    assert before <= kept and (log[-1]["step"] if log else 0) - kept <= INTERVAL
    return kept


def test_fifty_random_kills_change_nothing(short: Short, workplace: Path) -> None:
    print(f"seed {SEED}")
    draw, seconds = random.Random(SEED), {}

    def chosen(kind: str, classes: str) -> DreamBooth | LoRA:
        steps = {"max_train_steps": STEPS, "checkpointing_steps": INTERVAL, "validation_steps": 3}
        return short(KINDS[kind][0], class_data_dir=classes, **steps, **KINDS[kind][2])

    imported = SERVER.Process(target=time.time)
    imported.start()
    imported.join()  # from here on the seconds are a run's alone
    for kind in KINDS:
        seconds[kind] = run_whole(kind, chosen(kind, "class"))
    shutil.rmtree("cache_dir")  # so that a kill can fall into the encoding of the images, too
    kills = runs = 0
    while kills < KILLS:
        kind, experiment, kept = list(KINDS)[runs % len(KINDS)], Experiment(f"killed_{runs}"), 0
        runs += 1
        while kills < KILLS:
            phase = draw.choice(KINDS[kind][1])
            delay = draw.uniform(0, seconds[kind] * (0.05 if phase else 0.7))
            if not killed(start(experiment.name, chosen(kind, "other")), experiment.path, phase, delay):
                break
            kills += 1
            if experiment.status != "finished":
                kept = check_little_is_lost(experiment, kept)
        run_whole(experiment.name, chosen(kind, "other"))
        assert contents(experiment.path) == contents(Experiment(kind).path)
    assert contents(Path("other")) == contents(Path("class"))
    assert not list(workplace.rglob("*.partial"))
    print(f"{kills} kills in {runs} runs")


@pytest.fixture
def worker() -> Iterator[ProcessPoolExecutor]:
    """One process to train in, whose limits can be set without setting our own."""
    with ProcessPoolExecutor(1, mp_context=SERVER) as pool:
        yield pool


def killed_after(step: int, name: str, chosen: DreamBooth | LoRA) -> Experiment:
    """An experiment that was killed once a checkpoint was written."""
    experiment = Experiment(name)
    assert killed(start(name, chosen), experiment.path, f"checkpoints/step_{step:06d}", 0)
    return experiment


@pytest.mark.parametrize(
    ("method", "limits"),
    [
        ("dreambooth", (10_000_000, 40_000_000)),  # weights 25 MB, Adam's states 51 MB, exported UNet 22 MB
        ("lora", (100_000, 400_000)),  # 277 kB, 560 kB, 280 kB
    ],
)
def test_a_write_limit_leaves_the_checkpoints_whole(
    method: str, limits: tuple[int, int], short: Short, workplace: Path, worker: ProcessPoolExecutor
) -> None:
    few = {"max_train_steps": STEPS, "checkpointing_steps": INTERVAL, **NOT_LOOKED_AT}
    chosen = short(method, class_data_dir="class", **few)
    run_whole("whole", chosen)
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)

    def check_fails(limit: int, kept: int) -> None:
        worker.submit(resource.setrlimit, resource.RLIMIT_FSIZE, (limit, unlimited[1])).result()
        with pytest.raises(DiskFull, match=r"are free\. Make room and run again"):
            worker.submit(train, "limited", chosen, progress=False).result()
        assert experiment.status == "failed" and kept_steps(experiment) == kept
        assert not list(experiment.path.rglob("*.partial"))

    experiment = killed_after(2, "limited", chosen)
    for limit in limits:  # too small for the checkpoint's weights, then for its optimizer states
        check_fails(limit, 2)
    killed_after(4, "limited", chosen)
    check_fails(limits[0], 4)  # the export: no checkpoint is left to write
    worker.submit(resource.setrlimit, resource.RLIMIT_FSIZE, unlimited).result()
    worker.submit(train, "limited", chosen, progress=False).result()
    assert contents(experiment.path) == contents(Experiment("whole").path)


@pytest.fixture
def small_disk(workplace: Path) -> Iterator[Path]:
    """`experiments/`, a file system of its own of 8 MB."""
    place = workplace / "experiments"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(place)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("needs the command mount")
    if done.returncode:
        pytest.skip(f"needs the right to mount a small disk: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_disk_that_fills_up_leaves_the_checkpoints_whole(
    short: Short, small_disk: Path, worker: ProcessPoolExecutor
) -> None:
    print(f"seed {SEED}")
    draw = random.Random(SEED)
    chosen = short("lora", max_train_steps=STEPS, checkpointing_steps=INTERVAL, **NOT_LOOKED_AT)
    run_whole("whole", chosen)
    expected, failures = contents(Experiment("whole").path), 0
    for free in [0, 4096, *(draw.randrange(10_000, 900_000) for _ in range(2))]:
        experiment = Experiment("full")
        training = worker.submit(train, experiment.name, chosen, progress=False)
        while not (training.done() or any(experiment.path.glob("checkpoints/step_*"))):
            time.sleep(0.001)
        fill(small_disk / "ballast", free)
        if error := training.exception():
            assert isinstance(error, DiskFull) and "are free. Make room and run again" in str(error)
            assert kept_steps(experiment) >= INTERVAL and not list(experiment.path.rglob("*.partial"))
            failures += 1
        (small_disk / "ballast").unlink()
        worker.submit(train, experiment.name, chosen, progress=False).result()
        assert contents(experiment.path) == expected
        shutil.rmtree(experiment.path)
    assert failures >= 2


def fill(ballast: Path, free: int) -> None:
    """Fills a disk up to some free bytes."""
    with open(ballast, "wb") as file:
        file.write(bytes(max(0, shutil.disk_usage(ballast.parent).free - free)))
