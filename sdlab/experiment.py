"""The experiment folder: record, status, lock, log."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

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
from sdlab.files import append_line, write_bytes, write_json
from sdlab.prompts import check_file_name

__all__ = ["METHODS", "DreamBooth", "Experiment", "Hyperparameters", "LoRA", "Locked", "find"]

RESERVED = ("base", "report")  # folders of results/ that are no experiment


class Locked(RuntimeError):
    """Another process works on the experiment; the message says which."""


@dataclass(frozen=True)
class Experiment:
    """One folder: experiment.json, log.jsonl, checkpoints/, and model/ or pytorch_lora_weights.safetensors.

    Args:
        name: The folder's name; letters, digits and `_ . + -`.
        root: The folder of all experiments.

    Raises:
        ValueError: The name can't be a file name, or is reserved.
    """

    name: str
    root: Path = Path("experiments")

    def __post_init__(self) -> None:
        check_file_name(self.name, "experiment")
        if self.name in RESERVED:
            raise ValueError(
                f"The name {self.name!r} is reserved: results/{self.name}/ is something else. Take another."
            )
        object.__setattr__(self, "root", Path(self.root))

    @classmethod
    def load(cls, name_or_path: str | Path, root: str | Path = "experiments") -> Experiment:
        """Finds an experiment that was begun.

        Args:
            name_or_path: Its name in `root`, or its folder.
            root: The folder of all experiments.

        Returns:
            The experiment.

        Raises:
            ValueError: There is none; the message lists those that are there.
        """
        path = Path(name_or_path)
        if (path / "experiment.json").is_file():
            path = path.resolve() if path.name in ("", ".", "..") else path
            return cls(path.name, path.parent)
        if (Path(root) / path / "experiment.json").is_file():
            return cls((Path(root) / path).name, (Path(root) / path).parent)
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
        try:
            return dict(json.loads((self.path / "experiment.json").read_text(encoding="utf-8")))
        except FileNotFoundError:
            return {}

    @property
    def status(self) -> str:
        """`new`, `running`, `finished`, `failed` or `stopped` (also when its process died)."""
        status = str(self.record.get("status", "new"))
        return "stopped" if status == "running" and not self._locked() else status

    @property
    def hyperparameters(self) -> DreamBooth | LoRA:
        """The hyperparameters it was begun with."""
        return from_dict(self.record["hyperparameters"])

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
    def validation_folder(self) -> Path:
        """Where the images are that were made while training."""
        return self.path / "validation"

    def update(self, **values: Any) -> None:
        """Sets some entries of experiment.json.

        Args:
            **values: Ready for JSON.
        """
        write_json(self.path / "experiment.json", self.record | values)

    def begin(self, hyperparameters: DreamBooth | LoRA, fingerprints: dict[str, str | None]) -> None:
        """Writes down what will be trained from what, or checks that it is what was begun before.

        Args:
            hyperparameters: What is asked for now.
            fingerprints: Of the base and the images, as they are now; None where there is nothing to compare.

        Raises:
            ValueError: The experiment was begun with something else; the message says what differs.
        """
        if record := self.record:
            self._check_same(record, hyperparameters, fingerprints)
            return
        values = {"name": self.name, "method": hyperparameters.method, "status": "running"}
        self.update(**values, hyperparameters=hyperparameters.as_dict(), **fingerprints)

    def _check_same(
        self, record: dict[str, Any], new: Hyperparameters, fingerprints: dict[str, str | None]
    ) -> None:
        ignored = PLACES | BESIDE_TRAINING
        now = {name: value for name, value in new.as_dict().items() if name not in ignored}
        before = from_dict(record["hyperparameters"]).as_dict()
        now |= {
            name: value
            for name, value in fingerprints.items()
            if value is not None and record.get(name) is not None
        }
        before = before | {name: record.get(name) for name in fingerprints}
        differing = [
            f"{name} was {before.get(name)!r}, is {now[name]!r}"
            for name in now
            if before.get(name) != now[name]
        ]
        if differing:
            raise ValueError(
                f"The experiment {self.name!r} was begun with something else: {'; '.join(differing)}. "
                f"Take another name for the new experiment, or delete {self.path} to begin this one again."
            )

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keeps other processes away from the folder while the block runs.

        Raises:
            Locked: Another process has it; the message says which and since when.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        owner = self.path / ".owner.json"
        lock = FileLock(self.path / ".lock")
        try:
            lock.acquire(timeout=1)  # `status` of another process may hold it for an instant
        except Timeout:
            raise Locked(
                f"The experiment {self.name!r} is being worked on by {_who(owner)}. "
                "Wait for it, or stop it there."
            ) from None
        try:
            if owner.exists():
                print(f"{self.name}: taking over from {_who(owner)}, which ended without finishing.")
            now = {
                "process": os.getpid(),
                "host": socket.gethostname(),
                "since": time.strftime("%Y-%m-%d %H:%M:%S"),
            }
            write_json(owner, now)
            yield
        finally:
            owner.unlink(missing_ok=True)
            lock.release()

    def _locked(self) -> bool:
        lock = FileLock(self.path / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return True
        lock.release()
        return False

    def log(self) -> list[dict[str, Any]]:
        """Reads log.jsonl.

        Returns:
            One dict per row (`step`, `loss`, `learning_rate` …); a row that a kill tore is left out.
        """
        try:
            lines = (self.path / "log.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
        except FileNotFoundError:
            return []
        return [json.loads(line) for line in lines if line.endswith("}\n")]

    def add_to_log(self, row: dict[str, Any]) -> None:
        """Appends a row to log.jsonl.

        Args:
            row: Ready for JSON.

        Raises:
            DiskFull: The disk is full.
        """
        append_line(self.path / "log.jsonl", json.dumps(row))

    def cut_log(self, step: int) -> None:
        """Drops the log's rows after a step, for a run that goes on from there.

        Args:
            step: The last step to keep.
        """
        rows = [json.dumps(row) + "\n" for row in self.log() if row["step"] <= step]
        write_bytes(self.path / "log.jsonl", "".join(rows).encode())


def find(root: str | Path = "experiments") -> list[Experiment]:
    """Lists the experiments in a folder.

    Args:
        root: The folder of all experiments.

    Returns:
        Those that were begun, by name.
    """
    return [
        Experiment(file.parent.name, file.parent.parent)
        for file in sorted(Path(root).glob("*/experiment.json"))
    ]


def _who(owner: Path) -> str:
    try:
        now = json.loads(owner.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "another process"
    return f"process {now['process']} on {now['host']} since {now['since']}"
