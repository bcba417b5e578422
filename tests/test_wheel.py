"""An installed wheel has what the demo begins with: photos, control images, the mini model and its reader."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DEMO = "import sdlab; print(sdlab.__file__); sdlab.demo(num_class_images=2, max_train_steps=2)"
PACKAGED = (
    "from sdlab import mini; print(len(mini.copy_control_images('c')), len(mini.copy_photos('man', 'm')))"
)


@pytest.mark.slow
def test_the_demo_begins_in_an_empty_folder_without_the_repository(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path), str(ROOT)]
    subprocess.run([*pip, *build], check=True)
    installed, work = tmp_path / "installed", tmp_path / "work"
    (wheel,) = tmp_path.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", str(installed), str(wheel)], check=True)
    assert not (installed / "recipes").exists()

    work.mkdir()
    environment = os.environ | {"PYTHONPATH": str(installed)}
    packaged = subprocess.check_output([sys.executable, "-c", PACKAGED], cwd=work, env=environment, text=True)
    assert packaged.split() == ["4", "18"]
    said = []
    with subprocess.Popen(
        [sys.executable, "-c", DEMO], cwd=work, env=environment, stdout=subprocess.PIPE, text=True
    ) as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            said.append(line)
            if (
                "[3/7]" in line
            ):  # photos are prepared, class images are sampled; the trainings are not the point
                demo.terminate()
                break
    assert str(installed) in said[0] and "[3/7]" in said[-1], said
    assert len(list((work / "data/instance_images").glob("*.png"))) == 22
