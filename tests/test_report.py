"""The report says what is on disk and what was measured, and nothing else leaks into it."""

from __future__ import annotations

import base64
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from sdlab.experiment import DreamBooth, Experiment, LoRA
from sdlab.photos import prepare
from sdlab.prompts import PromptSet
from sdlab.report import report
from sdlab.report.conclusion import conclusion
from sdlab.report.curves import loss_curves, smoothed
from sdlab.report.sections import sweep_over

PROMPTS = PromptSet(
    {"street": "portrait of sks woman on the street", "moon": "<b onclick=alert(1)>moon</b> $x_{$"}
)
RATES = {"lora_rank4_lr2e-6": 2e-6, "lora_rank4_lr2e-4": 2e-4, "lora_rank4_lr2e-3": 2e-3}


def finished(name: str, chosen: DreamBooth | LoRA, size: float) -> None:
    """An experiment's folder as training leaves it."""
    experiment = Experiment(name)
    experiment.begin(chosen, {"base_fingerprint": "0123456789abcdef"})
    for step in range(10, 101, 10):
        experiment.add_to_log({"step": step, "loss": math.exp(-step / 50), "seconds": step / 10})
    figures = {
        "seconds": 65.0,
        "steps": 100,
        "trainable_parameters": 1000,
        "size_mb": size,
        "final_loss": 0.14,
    }
    experiment.update(
        status="finished", base="mini", environment={"torch": "2.13", "device": "cpu"}, **figures
    )


@pytest.fixture
def course(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A whole course's folders, with six experiments and their images."""
    monkeypatch.chdir(tmp_path)
    common = {"instance_data_dir": str(tmp_path / "data/instance_images"), "resolution": 128}
    finished("dreambooth", DreamBooth(learning_rate=2e-6, **common), 17.0)
    for name, rate in RATES.items():
        finished(name, LoRA(rank=4, learning_rate=rate, **common), 0.2)
    for rank in (2, 8):
        finished(f"lora_rank{rank}_lr2e-4", LoRA(rank=rank, learning_rate=2e-4, **common), 0.2)
    exif = Image.Exif()
    exif[0x010E] = "taken at home"
    for name in ("base", *(path.name for path in (tmp_path / "experiments").iterdir())):
        (tmp_path / "results" / name).mkdir(parents=True)
        for prompt in PROMPTS.prompts:
            for n in range(1, 5):
                image = Image.effect_noise((128, 128), 50).convert("RGB")
                image.save(tmp_path / "results" / name / f"{prompt}_img{n}.png", exif=exif)
    (tmp_path / "data/raw_images").mkdir(parents=True)
    for n in range(7):
        Image.new("RGB", (200, 150), (30 * n, 90, 90)).save(tmp_path / f"data/raw_images/{n}.jpg", exif=exif)
    prepare(resolution=128)
    return tmp_path


MEASURED = {
    "base": {"likeness": (0.1, 0.05, 0.15)},
    "dreambooth": {"likeness": (0.9, 0.8, 0.95)},
    "lora_rank4_lr2e-6": {"likeness": 0.11},
    "lora_rank4_lr2e-4": {"likeness": 0.8},
    "lora_rank4_lr2e-3": {"likeness": 0.3},
}


class Tags(HTMLParser):
    """The elements that a browser would make of some HTML."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def headings(markdown: str) -> list[str]:
    return re.findall(r"^## (.+)$", markdown, re.MULTILINE)


def test_the_report_has_every_part_of_the_homework(course: Path) -> None:
    page = report(prompts=PROMPTS, measurements=MEASURED)
    assert page == Path("results/report/report.html")
    markdown = page.with_name("README.md").read_text(encoding="utf-8")
    assert headings(markdown) == [
        "Dataset", "Prompts", "DreamBooth", "LoRA: learning rate", "LoRA: rank", "DreamBooth against LoRA",
        "Conclusion", "Reproducibility",
    ]  # fmt: skip
    html = page.read_text(encoding="utf-8")
    for text in (
        "learning rate",
        "0.90 (0.80 to 0.95)",
        "fingerprint",
        "1 min 5 s",
        "2.13",
        "--resolution=128",
    ):
        assert text in html
    assert html.count('class="curve"') == 3


def test_readme_links_are_relative_and_there(course: Path) -> None:
    folder = report(prompts=PROMPTS).parent
    markdown = (folder / "README.md").read_text(encoding="utf-8")
    links = re.findall(r'src="([^"]+)"', markdown)
    assert len(links) > 20
    assert all(link.startswith("pictures/") and (folder / link).is_file() for link in links)


def test_report_html_needs_no_other_file(course: Path) -> None:
    html = report(prompts=PROMPTS).read_text(encoding="utf-8")
    for tag, attributes in Tags(html).found:
        assert tag not in ("script", "link", "iframe", "object")
        assert str(attributes.get("src", "data:")).startswith("data:")
        assert str(attributes.get("href", "#")).startswith("#")
        assert all(not name.startswith("on") for name in attributes)


def test_nothing_private_is_handed_in(course: Path) -> None:
    folder = report(prompts=PROMPTS).parent
    for path in folder.rglob("*"):
        if path.is_file():
            # a picture in the page is base64, in which any four letters turn up by chance: look at its bytes
            content = re.sub(
                rb"data:[a-z/+]+;base64,([A-Za-z0-9+/=]+)",
                lambda found: base64.b64decode(found[1]),
                path.read_bytes(),
            )
            assert str(course).encode() not in content and str(Path.home()).encode() + b"/" not in content
            assert b"taken at home" not in content and b"Exif" not in content


def test_the_folder_stays_below_two_megabytes(course: Path) -> None:
    # noise is the hardest picture to compress
    folder = report(prompts=PROMPTS).parent
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 2_000_000


def test_the_conclusion_says_what_was_measured(course: Path) -> None:
    experiments = [Experiment(name) for name in ("dreambooth", *RATES)]
    said = conclusion(experiments, experiments[1:], [], MEASURED)
    assert said[0] == (
        "Likeness is highest in dreambooth, with 0.90 (0.80 to 0.95), and lowest in lora_rank4_lr2e-6, "
        "with 0.11; the base model has 0.10 (0.05 to 0.15)."
    )
    assert said[1] == (
        "Over the learning rate of the LoRA, likeness is 0.11 at 2e-6, 0.80 at 2e-4, 0.30 at 2e-3: "
        "highest at 2e-4."
    )
    unsure = {"base": {"likeness": (0.5, 0.3, 0.7)}, "dreambooth": {"likeness": (0.6, 0.4, 0.8)}}
    assert conclusion(experiments, [], [], unsure)[0].endswith("overlap: no difference is shown.")
    unmeasured = " ".join(conclusion(experiments, experiments[1:], [], {}))
    assert "were not measured" in unmeasured and "highest" not in unmeasured
    assert "17 MB" in unmeasured and "1 min 5 s" in unmeasured


def test_without_measurements_no_best_is_claimed(course: Path) -> None:
    markdown = report(prompts=PROMPTS).with_name("README.md").read_text(encoding="utf-8")
    assert "DreamBooth against LoRA" not in headings(markdown)
    best = {"dreambooth": "dreambooth", "lora": "lora_rank4_lr2e-4"}
    markdown = report(prompts=PROMPTS, best=best).with_name("README.md").read_text(encoding="utf-8")
    assert "DreamBooth against LoRA" in headings(markdown)


def test_the_students_own_conclusion_is_kept(course: Path) -> None:
    readme = report(prompts=PROMPTS).with_name("README.md")
    draft = readme.read_text(encoding="utf-8")
    report(prompts=PROMPTS, measurements=MEASURED)
    assert readme.read_text(encoding="utf-8") != draft  # an unedited draft follows the measurements
    text = readme.read_text(encoding="utf-8")
    sentence = next(line for line in text.splitlines() if line.startswith("- Likeness is highest"))
    readme.write_text(text.replace(sentence, "- I find <b>exp1</b> best."), encoding="utf-8")
    page = report(prompts=PROMPTS)
    assert "- I find <b>exp1</b> best." in readme.read_text(encoding="utf-8")
    assert "I find &lt;b&gt;exp1&lt;/b&gt; best." in page.read_text(encoding="utf-8")


def test_a_readme_of_someone_else_is_not_overwritten(course: Path) -> None:
    own = course / "results/report/README.md"
    own.parent.mkdir()
    own.write_text("my own words")
    with pytest.raises(ValueError, match="wasn't made by `sdlab report`"):
        report(prompts=PROMPTS)
    assert own.read_text() == "my own words"


def test_sweeps_are_found_in_the_hyperparameters(course: Path) -> None:
    loras = [Experiment(name) for name in [*RATES, "lora_rank2_lr2e-4", "lora_rank8_lr2e-4"]]
    assert [one.name for one in sweep_over("learning_rate", loras)] == list(RATES)
    assert [one.hyperparameters.rank for one in sweep_over("rank", loras)] == [2, 4, 8]
    assert sweep_over("rank", loras[:3]) == []


def test_no_experiments_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="there are no experiments in experiments"):
        report(prompts=PROMPTS)
    with pytest.raises(ValueError, match="Unknown experiment"):
        report(["dreambooth"], PROMPTS)


def test_loss_curves_are_drawn_and_smoothed_without_bias(course: Path) -> None:
    assert smoothed([2.0] * 50) == pytest.approx([2.0] * 50)
    drawn = loss_curves([Experiment("dreambooth")])
    assert drawn is not None and len(drawn.getcolors(10**6) or []) > 10
    assert loss_curves([Experiment("unheard_of")]) is None
