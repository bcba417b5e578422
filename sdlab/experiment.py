"""The experiment folder: record, status, lock, log."""

from __future__ import annotations

import json
import os
import re
import socket
import time
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import Timeout

from sdlab.config import (
    BESIDE_TRAINING,
    METHODS,
    PLACES,
    DreamBooth,
    Hyperparameters,
    LoRA,
    from_dict,
    unknown,
)
from sdlab.files import acquire_lock, append_line, read_text, write_bytes, write_json
from sdlab.prompts import check_file_name

__all__ = ["METHODS", "DreamBooth", "Experiment", "Hyperparameters", "LoRA", "Locked", "find"]

# Names that mean something else where experiments are named.
RESERVED = {
    "base": "the base model itself",
    "report": "the folder results/report/",
    "photos": "the subject's photos, in scores",
    "mini": "the base model mini",
    "sd15": "the base model Stable Diffusion 1.5",
    "sd15-16gb": "a profile",
    "sd15-8gb": "a profile",
}
_TRAINED_FROM = ("base_fingerprint", "instance_images", "captions", "base")


class Locked(RuntimeError):
    """Another process works on the experiment; the message says which."""


@dataclass(frozen=True)
class Experiment:
    """One folder: experiment.json, log.jsonl, checkpoints/, and model/ or pytorch_lora_weights.safetensors.

    Args:
        name: The folder's name; letters, digits and `_ . -`.
        root: The folder of all experiments.

    Raises:
        ValueError: The name can't be a file name, or is reserved.
    """

    name: str
    root: Path = Path("experiments")

    def __post_init__(self) -> None:
        check_file_name(self.name, "experiment")
        means = "a model with a LoRA on it" if "+" in self.name else RESERVED.get(self.name.lower())
        if means:
            raise ValueError(
                f"The name {self.name!r} is reserved: it means {means}. "
                f"Try {'my_' + self.name.replace('+', '_')!r}."
            )
        object.__setattr__(self, "root", Path(self.root).expanduser())

    @classmethod
    def load(cls, name_or_path: str | Path, root: str | Path = "experiments") -> Experiment:
        """Finds an experiment that was begun, by its name in `root` or by its folder.

        Raises:
            ValueError: There is none (the message lists those that are there), or its record can't be read.
        """
        for path in (Path(name_or_path).expanduser(), Path(root).expanduser() / name_or_path):
            if (path / "experiment.json").is_file():
                path = path.resolve() if path.name in ("", ".", "..") else path
                found = cls(path.name, path.parent)
                found.hyperparameters  # noqa: B018  # raises where the record was torn or edited
                return found
        names = [experiment.name for experiment in find(root)]
        raise ValueError(
            unknown(f"experiment in {root}", str(name_or_path), names or ["(there is none yet)"])
        )

    @property
    def path(self) -> Path:
        """The experiment's folder."""
        return self.root / self.name

    @property
    def record(self) -> dict[str, Any]:
        """What experiment.json holds; empty for a new experiment."""
        file = self.path / "experiment.json"
        try:
            return dict(json.loads(read_text(file)))
        except FileNotFoundError:
            return {}
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"{file} can't be read as JSON ({error}). Undo the last edit of it, or delete {self.path} to "
                "train the experiment again."
            ) from error

    @property
    def status(self) -> str:
        """`new`, `running`, `finished`, `failed` or `stopped` (also when its process died)."""
        status = str(self.record.get("status", "new"))
        if status == "running":
            try:
                with acquire_lock(self.path / ".lock", timeout=0):
                    return "stopped"
            except Timeout:
                pass
        return status

    @property
    def hyperparameters(self) -> DreamBooth | LoRA:
        """The hyperparameters it was begun with."""
        record = self.record
        try:
            return from_dict(record["hyperparameters"])
        except (KeyError, TypeError, ValueError) as error:
            file = self.path / "experiment.json"
            what = f"holds no usable hyperparameters ({error})" if record else "is missing or empty"
            raise ValueError(
                f"{file} {what}. Bring it back, or delete {self.path} to train the experiment again."
            ) from error

    @property
    def lora_file(self) -> Path:
        """Where a LoRA's trained weights are."""
        return self.path / "pytorch_lora_weights.safetensors"

    @property
    def model_folder(self) -> Path:
        """Where a DreamBooth's trained model is, in the diffusers layout."""
        return self.path / "model"

    @property
    def card_file(self) -> Path:
        """Where its model card is: beside what is handed on."""
        return (self.path if self.record.get("method") == "lora" else self.model_folder) / "README.md"

    @property
    def checkpoints_folder(self) -> Path:
        """Where the checkpoints are."""
        return self.path / "checkpoints"

    @property
    def checkpoints(self) -> list[Path]:
        """Its checkpoints, oldest first."""
        return checkpoints_in(self.checkpoints_folder)

    @property
    def validation_folder(self) -> Path:
        """Where the images are that were made while training."""
        return self.path / "validation"

    @property
    def has_steps(self) -> bool:
        """Whether something was trained that another start must not replace."""
        status = self.record.get("status")
        if status == "finished" or self.checkpoints:
            return True
        return status != "failed" and any(row["step"] > 0 for row in self.log())  # its weights are lost

    def update(self, **values: Any) -> None:
        """Sets some entries of experiment.json; they are ready for JSON."""
        write_json(self.path / "experiment.json", self.record | values)

    def begin(self, hyperparameters: DreamBooth | LoRA, fingerprints: dict[str, str | None]) -> None:
        """Writes down what will be trained from what, or checks that it is what was begun before.

        What took no step, or failed before its first checkpoint, protects nothing and begins anew. More steps
        than before are taken, and fewer where the newest checkpoint has no more. Fingerprints are of the base
        and the images, as they are now; None where there is nothing to compare.

        Raises:
            ValueError: The experiment did steps with something else; the message says what differs.
        """
        record, new = self.record, hyperparameters.as_dict()
        others = [one.name for one in sorted(self.path.glob("[!.]*"))] if not record else []
        if others:
            raise ValueError(
                f"{self.path} holds other things than an experiment: {', '.join(others[:5])}. Take another "
                "name, or move them away."
            )
        if not self.has_steps:
            record = {name: value for name, value in record.items() if name in _TRAINED_FROM}
            record |= {"name": self.name, "method": hyperparameters.method, "status": "running"}
            write_json(self.path / "experiment.json", record | {"hyperparameters": new} | fingerprints)
            return
        before, steps = self.hyperparameters.as_dict(), record["hyperparameters"]["max_train_steps"]
        done = steps
        if record.get("status") != "finished" and self.checkpoints:
            done = step_of(self.checkpoints[-1])
        moved = new["max_train_steps"] != steps and new["max_train_steps"] >= done
        ignored = PLACES | BESIDE_TRAINING | {"max_train_steps"} if moved else PLACES | BESIDE_TRAINING
        pairs = {name: (before.get(name), value) for name, value in new.items() if name not in ignored}
        pairs |= {name: (record[name], now) for name, now in fingerprints.items() if now and record.get(name)}
        differing = [f"{name} was {old!r}, is {now!r}" for name, (old, now) in pairs.items() if old != now]
        if differing:
            raise ValueError(
                f"The experiment {self.name!r} was begun with something else: {'; '.join(differing)}. "
                f"Take another name for the new experiment, or delete {self.path} to begin this one again."
            )
        if moved:
            values = record["hyperparameters"] | {"max_train_steps": new["max_train_steps"]}
            history = [*record.get("longer_from", []), steps]
            self.update(hyperparameters=values, status="running", longer_from=history)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keeps other processes away from the folder while the block runs.

        Raises:
            Locked: Another process has it; the message says which and since when.
        """
        owner = self.path / ".owner.json"
        try:  # `status` of another process may hold it for an instant
            lock = acquire_lock(self.path / ".lock", timeout=1)
        except Timeout:
            raise Locked(
                f"The experiment {self.name!r} is being worked on by {_who(owner)}. "
                "Wait for it, or stop it there."
            ) from None
        with lock:
            if owner.exists():
                print(f"{self.name}: taking over from {_who(owner)}, which ended without finishing.")
            since = time.strftime("%Y-%m-%d %H:%M:%S")
            write_json(owner, {"process": os.getpid(), "host": socket.gethostname(), "since": since})
            try:
                yield
            finally:
                owner.unlink(missing_ok=True)

    def fail(self, error: BaseException) -> None:
        """Writes down what ended it; a finished one stays so where the longer training did no step."""
        record = self.record
        *history, steps = record.get("longer_from", [None])
        newest = step_of(self.checkpoints[-1]) if self.checkpoints else -1
        if steps is not None and record.get("steps") == newest == steps:
            values = record["hyperparameters"] | {"max_train_steps": steps}
            self.update(hyperparameters=values, status="finished", longer_from=history, message="")
        else:
            self.update(status="failed", message=f"{type(error).__name__}: {error}")

    def log(self) -> list[dict[str, Any]]:
        """The rows of log.jsonl (`step`, `loss`, `learning_rate` …), without one that a kill tore."""
        try:
            lines = (self.path / "log.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
        except FileNotFoundError:
            return []
        rows = []
        for number, line in enumerate((line for line in lines if line.endswith("}\n")), 1):
            try:
                rows.append(json.loads(line))
            except ValueError as error:
                place = f"line {number} of {self.path / 'log.jsonl'}"
                raise ValueError(f"{place} can't be read as JSON ({error}). Delete that line.") from error
        return rows

    def add_to_log(self, row: dict[str, Any]) -> None:
        """Appends a row to log.jsonl; it is ready for JSON."""
        append_line(self.path / "log.jsonl", json.dumps(row))

    def cut_log(self, step: int) -> None:
        """Drops the log's rows after a step, for a run that goes on from there."""
        rows = [json.dumps(row) + "\n" for row in self.log() if row["step"] <= step]
        write_bytes(self.path / "log.jsonl", "".join(rows).encode())


def checkpoints_in(folder: Path) -> list[Path]:
    """The checkpoints in a folder, oldest first; what else lies beside them is the user's."""
    return sorted((one for one in folder.glob("step_*") if re.fullmatch(r"step_\d+", one.name)), key=step_of)


def step_of(checkpoint: Path) -> int:
    """The steps that were done when a checkpoint was saved, by its name."""
    return int(checkpoint.name.removeprefix("step_"))


def several(experiments: str | Experiment | Iterable[str | Experiment]) -> list[str | Experiment]:
    """A list of names or experiments; one alone needn't be in a list."""
    return [experiments] if isinstance(experiments, str | Experiment) else list(experiments)


def names_of(experiments: str | Experiment | Iterable[str | Experiment]) -> list[str]:
    """Names, each once."""
    return list(dict.fromkeys(one if isinstance(one, str) else one.name for one in several(experiments)))


def photos_of(experiments: Iterable[Experiment]) -> str:
    """The folder of photos that all of them learned from; the usual one where there is no such."""
    folders = {one.hyperparameters.instance_data_dir for one in experiments}
    return folders.pop() if len(folders) == 1 else Hyperparameters.instance_data_dir


def find(root: str | Path = "experiments") -> list[Experiment]:
    """Lists the experiments in a folder by name; one that can't be read is skipped with a warning."""
    found = []
    for file in sorted(Path(root).expanduser().glob("*/experiment.json")):
        try:
            found.append(Experiment.load(file.parent))
        except (ValueError, OSError) as error:
            warnings.warn(f"{file.parent} is skipped: {error}", stacklevel=2)
    return found


def _who(owner: Path) -> str:
    try:
        now = json.loads(owner.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "another process"
    return f"process {now['process']} on {now['host']} since {now['since']}"
