"""The report says what is on disk and what was measured, and nothing else leaks into it."""

from __future__ import annotations

import base64
import io
import re
import warnings
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image
from pypdf import PdfReader

from sdlab.experiment import DreamBooth, Experiment
from sdlab.prompts import PromptSet
from sdlab.reports import report, scan
from sdlab.reports.conclusion import conclusion
from sdlab.reports.curves import loss_curves
from sdlab.reports.flags import sweep_over
from sdlab.templates import markdown_text
from sdlab.verdict import held_out_losses, sentence, smoothed
from tests import course as made_up
from tests.course import HOSTILE, MEASURED, PROMPTS, RATES

EVERYTHING = [
    "Dataset", "Prompts", "DreamBooth", "Learning rate of LoRA", "Rank of LoRA", "DreamBooth against LoRA",
    "ControlNet", "Scores", "Conclusion", "Reproducibility",
]  # fmt: skip


@pytest.fixture
def course(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A whole course's folders, with six experiments and their images."""
    monkeypatch.chdir(tmp_path)
    made_up.make(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def handed_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a report that has every section, in the middle of a course that holds it."""
    folder = tmp_path_factory.mktemp("course")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        made_up.make(folder)
        cost = made_up.controlled("dreambooth", PROMPTS)
        made_up.controlled("lora_rank4_lr2e-4", PROMPTS)
        made_up.controlled("dreambooth", PROMPTS, scale=0.5)
        measured = MEASURED | {cost: {"likeness": (0.5, 0.4, 0.6)}}
        report(prompts=PROMPTS, measurements=measured, author="Vera | $x$")
    return folder / "results/report"


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


def text_of(pdf: Path | bytes) -> str:
    """What a PDF says, its lines joined."""
    pages = PdfReader(io.BytesIO(pdf) if isinstance(pdf, bytes) else pdf).pages
    return " ".join(" ".join(page.extract_text() for page in pages).split())


def test_the_report_has_every_part_of_the_homework(handed_in: Path) -> None:
    assert headings((handed_in / "README.md").read_text(encoding="utf-8")) == EVERYTHING
    html = (handed_in / "report.html").read_text(encoding="utf-8")
    for text in ("0.90 (0.80 to 0.95)", "fingerprint", "1 min 5 s", "2.13", "--resolution=128"):
        assert text in html
    assert html.count('class="curve"') == 4  # the losses of three groups, and likeness along the rates
    printed = text_of(handed_in / "report.pdf")
    for text in (*EVERYTHING, "0.90 (0.80 to 0.95)", "--resolution=128", "Author: Vera | $x$", "control map"):
        assert text in printed


def test_what_control_cost_is_said(handed_in: Path) -> None:
    said = (handed_in / "README.md").read_text(encoding="utf-8")
    assert "The control maps hold the outlines (canny); ControlNet keeps to them." in said
    change = "Without control, likeness is 0.90 in dreambooth; with canny 0.50."
    assert f"{change} The intervals show a loss with canny." in said
    assert "ControlNet with dreambooth at several conditioning scales, prompt street" in said
    assert said.count("dreambooth_canny_hat/moon_1.webp") == 1


def test_readme_links_are_relative_and_there(handed_in: Path) -> None:
    links = re.findall(r'src="([^"]+)"', (handed_in / "README.md").read_text(encoding="utf-8"))
    assert len(links) > 20
    assert all(link.startswith("pictures/") and (handed_in / link).is_file() for link in links)


def test_report_html_needs_no_other_file(handed_in: Path) -> None:
    for tag, attributes in Tags((handed_in / "report.html").read_text(encoding="utf-8")).found:
        assert tag not in ("script", "link", "iframe", "object")
        assert str(attributes.get("src", "data:")).startswith("data:")
        assert str(attributes.get("href", "#")).startswith("#")
        assert all(not name.startswith("on") for name in attributes)


def test_nothing_private_is_handed_in(handed_in: Path) -> None:
    for path in handed_in.rglob("*"):
        if path.is_file():
            # a picture in the page is base64, in which any four letters turn up by chance: look at its bytes
            content = re.sub(
                rb"data:[a-z/+]+;base64,([A-Za-z0-9+/=]+)",
                lambda found: base64.b64decode(found[1]),
                path.read_bytes(),
            )
            course = str(handed_in.parent.parent).encode()
            assert course not in content and str(Path.home()).encode() + b"/" not in content
            assert b"taken at home" not in content and b"Exif" not in content
    printed = PdfReader(handed_in / "report.pdf")
    notes = [note.get_object() for page in printed.pages for note in page.get("/Annots", [])]
    assert not any("/URI" in str(note) for note in notes)


def test_the_folder_fits_into_git(handed_in: Path) -> None:
    # noise is the hardest picture to compress
    assert sum(path.stat().st_size for path in handed_in.rglob("*") if path.is_file()) < 5_000_000


def test_hostile_prompts_are_only_text_in_every_form(course: Path) -> None:
    for name in ("base", "dreambooth"):
        made_up.images(name, HOSTILE, 1)
    page = report(["dreambooth"], HOSTILE, images_per_cell=1, title=HOSTILE.prompts["html"])
    found = [tag for tag, _ in Tags(page.read_text(encoding="utf-8")).found]
    assert "script" not in found and found.count("h1") == 1
    markdown = page.with_name("README.md").read_text(encoding="utf-8")
    assert {tag for tag, _ in Tags(markdown).found} == {"img", "br"}
    assert "$" not in markdown and "](" not in markdown and "www." not in markdown
    printed = text_of(page.with_name("report.pdf"))
    assert HOSTILE.prompts["html"] in printed.replace("</ script>", "</script>")
    assert "cost $x_{$ and `code` | *bold*" in printed and "портрет женщины" in printed
    assert "[woman][rocket]" in printed and "שלום" in printed


def test_russian_says_the_same_in_russian(course: Path) -> None:
    page = report(["dreambooth", *RATES], PROMPTS, measurements=MEASURED, language="ru", author="Вера")
    markdown = page.with_name("README.md").read_text(encoding="utf-8")
    assert headings(markdown) == [
        "Данные", "Промпты", "DreamBooth", "Скорость обучения LoRA", "Сравнение DreamBooth и LoRA",
        "Метрики", "Выводы", "Воспроизводимость",
    ]  # fmt: skip
    assert "# Дообучение Stable Diffusion" in markdown and "Автор: Вера" in markdown
    assert "0.90 (0.80–0.95)" in markdown and "1 мин 5 с" in markdown and "базовая модель" in markdown
    # what is English in it: flags, names and prompts
    plain = re.sub(r"<[^>]*>|```.*?```|`[^`]*`|portrait of[^|\n]*", "", markdown, flags=re.DOTALL)
    assert not re.search(r"\b(the|of the|with|and|images?|experiments?|highest|measured|expect)\b", plain)
    assert 'lang="ru"' in page.read_text(encoding="utf-8")
    assert "Выводы" in text_of(page.with_name("report.pdf"))


def sentence_of(one: Experiment, language: str) -> str:
    moved, change = one.record["weight_change"], one.record["prediction_change"]
    return sentence(one.hyperparameters, moved, change, held_out_losses(one), language)


def test_what_a_training_did_is_said_in_russian_from_its_figures(course: Path) -> None:
    experiment = Experiment("lora_rank4_lr2e-6")
    assert sentence_of(experiment, "en") == (
        "rank 4 at 2e-6 moved the weights by 2 % and the prediction by 0.9 %: expect no likeness; try a "
        "learning rate of 2e-5 or more steps."
    )
    assert sentence_of(experiment, "ru") == (
        "ранг 4, скорость обучения 2e-6: веса изменились на 2 %, предсказание UNet на 0.9 %. Сходства ждать "
        "не стоит: попробуйте скорость обучения 2e-5 или больше шагов."
    )
    experiment.update(prediction_change=0.5)
    assert "испорчены" in sentence_of(experiment, "ru")
    experiment.update(prediction_change=0.1)
    assert sentence_of(experiment, "ru").endswith("Это обычные значения.")
    for step, loss in ((0, 0.1), (50, 0.09), (100, 0.12)):
        experiment.add_to_log({"step": step, "validation_loss": loss})
    assert "вырос с 0.1 до 0.12 (минимум после шага 50)" in sentence_of(experiment, "ru")
    experiment.add_to_log({"step": 150, "validation_loss": 0.3})  # that is no longer memorising
    assert "испорчены" in sentence_of(experiment, "ru")


def test_the_report_says_once_which_trainings_went_wrong(course: Path) -> None:
    low, best, high = (Experiment(name) for name in RATES)
    for one, change in ((low, 0.009), (best, 0.1), (high, 0.5)):
        one.update(prediction_change=change)
    for step, loss in ((0, 0.1), (50, 0.09), (100, 0.12)):
        best.add_to_log({"step": step, "validation_loss": loss})
    said = report([*RATES], PROMPTS).with_name("README.md").read_text(encoding="utf-8")
    assert f"{low.name} changed the UNet's prediction by 0.9 %, too little for likeness." in said
    assert f"{high.name} changed the UNet's prediction by 50 %, so far that images break." in said
    assert f"began for {best.name}: the photos began to be memorised." in said


def test_the_conclusion_says_what_was_measured(course: Path) -> None:
    experiments = [Experiment(name) for name in ("dreambooth", *RATES)]
    said = conclusion(experiments, experiments[1:], [], MEASURED)
    assert said[0].startswith(
        "DreamBooth learned the subject: likeness rises from 0.10 in the base model to 0.90 in dreambooth."
    )
    assert said[1] == (
        "Of the learning rates 2e-6, 2e-4 and 2e-3, LoRA learns best at 2e-4, where likeness is 0.80. At "
        "lower rates as many steps teach it less: 0.11 at 2e-6. Too high a rate undoes it: 0.30 at 2e-3."
    )
    unsure = {"base": {"likeness": (0.5, 0.3, 0.7)}, "dreambooth": {"likeness": (0.6, 0.4, 0.8)}}
    assert conclusion(experiments, [], [], unsure)[0].startswith(
        "These images don't show that DreamBooth learned the subject: likeness is 0.60 in dreambooth and 0.50"
    )
    others = [Experiment("dreambooth"), Experiment("lora_rank4_lr2e-6"), Experiment("lora_rank4_lr2e-3")]
    said = conclusion(others, [], [], MEASURED)
    assert "For comparison: 0.11 in lora_rank4_lr2e-6 (learning_rate 2e-6)." in said[1]
    drift = {"base": (0.2, 0.1, 0.3), "dreambooth": (0.7, 0.6, 0.8), "lora_rank4_lr2e-4": (0.2, 0.1, 0.3)}
    pair = {"dreambooth": "dreambooth", "lora": "lora_rank4_lr2e-4"}
    said = conclusion(experiments, experiments[1:], [], MEASURED, pair=pair, drift=drift)
    assert "more like the subject than the base model's (PRES 0.70 against 0.20)." in said[0]
    assert "without the rare word, images of lora_rank4_lr2e-4 are no more like the subject" in said[2]
    nothing = {name: {"likeness": (0.5, 0.3, 0.7)} for name in ("base", "dreambooth", *RATES)}
    said = conclusion(experiments, experiments[1:], [], nothing)
    assert said[1].startswith(
        "At none of the learning rates 2e-6, 2e-4 and 2e-3 do these images show that LoRA"
    )
    assert "tell" not in said[-1]  # which of these rates is best is no question
    course_of = [*experiments[1:], Experiment("dreambooth")]
    course_of[-1].update(size_mb=4270.0)
    assert "4.27 GB on disk" in " ".join(conclusion(course_of, [], [], MEASURED))
    course_of[-1].update(size_mb=17.0)
    unmeasured = " ".join(conclusion(experiments, experiments[1:], [], {}))
    assert "were not measured" in unmeasured and "rises" not in unmeasured and "learns best" not in unmeasured
    assert "17 MB" in unmeasured and "1 min 5 s" in unmeasured


def test_without_measurements_no_best_is_claimed(course: Path) -> None:
    markdown = report(prompts=PROMPTS).with_name("README.md").read_text(encoding="utf-8")
    assert "DreamBooth against LoRA" not in headings(markdown)
    best = {"dreambooth": "dreambooth", "lora": "lora_rank4_lr2e-4"}
    markdown = report(prompts=PROMPTS, best=best).with_name("README.md").read_text(encoding="utf-8")
    assert "DreamBooth against LoRA" in headings(markdown)


def test_who_is_compared_must_be_there(course: Path) -> None:
    with pytest.raises(ValueError, match=r"best LoRA must be one of the report's, lora_.*got 'nobody'"):
        report(prompts=PROMPTS, best={"lora": "nobody"})
    with pytest.raises(ValueError, match=r"best LoRA must be .*got 'dreambooth'"):
        report(prompts=PROMPTS, best={"lora": "dreambooth"})
    with pytest.raises(ValueError, match="images_per_cell must be 1, 2 or 4, got 3"):
        report(prompts=PROMPTS, images_per_cell=3)
    with pytest.raises(ValueError, match="at least one experiment that was trained here"):
        report(["base"], PROMPTS)
    assert not Path("results/report").exists()
    best = {"lora": "lora_rank4_lr2e-3"}  # the other is chosen as always
    said = report(prompts=PROMPTS, measurements=MEASURED, best=best).with_name("README.md")
    section = said.read_text(encoding="utf-8").partition("## DreamBooth against LoRA")[2].partition("## ")[0]
    assert "**dreambooth**" in section and "**lora_rank4_lr2e-3**" in section and "2e-4" not in section


def edited(readme: Path, key: str, text: str) -> None:
    """Writes into a place of the report as a student does."""
    content = readme.read_text(encoding="utf-8")
    pattern = rf"(<!-- {key} \w+: edit below -->).*?(<!-- end of {key} -->)"
    changed, count = re.subn(pattern, lambda m: f"{m[1]}\n\n{text}\n\n{m[2]}", content, flags=re.DOTALL)
    assert count == 1
    readme.write_text(changed, encoding="utf-8")


def test_what_the_student_writes_is_kept_in_every_form(course: Path) -> None:
    readme = report(["dreambooth"], PROMPTS).with_name("README.md")
    draft = readme.read_text(encoding="utf-8")
    report(["dreambooth"], PROMPTS, measurements=MEASURED)
    assert readme.read_text(encoding="utf-8") != draft  # unedited drafts follow the measurements
    mine = {
        "title": "# My Vera\n\nIvan, group 5",
        "introduction": "I took **ten** photos.",
        "remark-dataset": "Two of them are [blurry](javascript:alert(1)).",
        "conclusion": "- I find <b onclick=alert(1)>exp1</b> best.",
    }
    for key, text in mine.items():
        edited(readme, key, text)
    page = report(["dreambooth"], PROMPTS, title="Another title")
    content, html = readme.read_text(encoding="utf-8"), page.read_text(encoding="utf-8")
    assert all(text in content for text in mine.values()) and "Another title" not in content
    assert "<title>My Vera</title>" in html and "<strong>ten</strong>" in html
    assert "&lt;b onclick=alert(1)&gt;exp1&lt;/b&gt; best." in html and 'href="javascript' not in html
    printed = text_of(page.with_name("report.pdf"))
    assert "My Vera" in printed and "Ivan, group 5" in printed and "I took ten photos." in printed
    assert not list(readme.parent.glob("README.before*"))
    report(["dreambooth"], PROMPTS, language="ru")
    assert all(text in readme.read_text(encoding="utf-8") for text in mine.values())


def test_a_given_title_and_author_stay_until_others_are_given(course: Path) -> None:
    readme = report(["dreambooth"], PROMPTS, title="Vera", author="group 5").with_name("README.md")
    report(["dreambooth"], PROMPTS)
    assert "# Vera\n\nAuthor: group 5" in readme.read_text(encoding="utf-8")
    report(["dreambooth"], PROMPTS, title="Otto")
    said = readme.read_text(encoding="utf-8")
    assert "# Otto" in said and "group 5" not in said
    other = report(["dreambooth"], PROMPTS, out="other").with_name("README.md")
    report(["dreambooth"], PROMPTS, out="other", language="ru")
    assert "# Дообучение" in other.read_text(encoding="utf-8")  # its own title follows the language


def test_a_remark_outlives_its_section(course: Path) -> None:
    readme = report(["dreambooth", *RATES], PROMPTS).with_name("README.md")
    edited(readme, "remark-learning_rate", "2e-6 learns nothing.")
    report(["dreambooth"], PROMPTS)
    content = readme.read_text(encoding="utf-8")
    assert "More remarks" in headings(content) and "2e-6 learns nothing." in content
    assert len(list(readme.parent.glob("pictures/lora_rank4*"))) == 0  # nobody shows them any more
    report(["dreambooth", *RATES], PROMPTS)
    content = readme.read_text(encoding="utf-8")
    assert "More remarks" not in headings(content) and content.count("2e-6 learns nothing.") == 1


def test_a_students_picture_is_never_deleted(course: Path) -> None:
    readme = report(["dreambooth", *RATES], PROMPTS).with_name("README.md")
    mine = readme.parent / "pictures/mine.png"
    Image.new("RGB", (60, 40), "red").save(mine)
    text = readme.read_text(encoding="utf-8")
    readme.write_text(text + '\n<img src="pictures/mine.png">\n', encoding="utf-8")
    drawn = next(readme.parent.glob("pictures/lora_rank4_lr2e-6/*.webp"))
    Image.new("RGB", (60, 40), "blue").save(drawn)  # drawn over by hand
    report(["dreambooth"], PROMPTS)
    report(["dreambooth"], PROMPTS)
    assert mine.is_file() and drawn.is_file()
    assert not list(readme.parent.glob("pictures/lora_rank4_lr2e-4/*"))


def test_sameness_is_claimed_only_when_it_was_compared(course: Path) -> None:
    said = report(["dreambooth", *RATES], PROMPTS).with_name("README.md").read_text(encoding="utf-8")
    assert "the same prompts and seeds" not in said  # these images have no records

    for name in ("base", "dreambooth"):
        made_up.recorded(name, PROMPTS, count=4)
    said = report(["dreambooth"], PROMPTS).with_name("README.md").read_text(encoding="utf-8")
    assert "All experiments were given the same prompts and seeds." in said
    made_up.recorded("dreambooth", PROMPTS, count=2)
    said = report(["dreambooth"], PROMPTS).with_name("README.md").read_text(encoding="utf-8")
    assert "Not all were given the same prompts and seeds, so compare with care: dreambooth." in said
    made_up.recorded("dreambooth", PROMPTS, count=4, seed=100, made="2026-02-02")
    said = report(["dreambooth"], PROMPTS).with_name("README.md").read_text(encoding="utf-8")
    assert "seeds from 100" in said and "Images made with another setting are not shown: 8." in said


def test_a_report_about_a_thing_speaks_of_no_person(course: Path) -> None:
    prompts = PromptSet({"shelf": "a sks robot toy on a shelf"})
    chosen = {"instance_prompt": "a photo of sks robot toy", "class_prompt": "a photo of robot toy"}
    made_up.finished("toy", DreamBooth(**chosen), 17.0)
    for name in ("base", "toy"):
        made_up.images(name, prompts)
    measured = {"base": {"CLIP-I": 0.5}, "toy": {"CLIP-I": (0.8, 0.7, 0.9)}}
    for language, title in (("en", "one thing"), ("ru", "одного предмета")):
        page = report(["toy"], prompts, measurements=measured, language=language, dataset="nowhere")
        assert title in page.read_text(encoding="utf-8")
        shown = re.sub(
            r"<(style|script).*?</\1>|<[^>]+>", " ", page.read_text(encoding="utf-8"), flags=re.DOTALL
        )
        markdown = page.with_name("README.md").read_text(encoding="utf-8")
        said = shown + markdown + text_of(page.with_name("report.pdf"))
        assert not re.search(r"\b(person|face|woman|man|she|her)\b|человек|\bлиц|женщин", said, re.IGNORECASE)


def test_images_made_elsewhere_have_a_section(course: Path) -> None:
    folder = Path("results/webui")
    folder.mkdir()
    Image.new("RGB", (128, 128), "blue").save(folder / "street_img1.jpg")
    said = report(["dreambooth", "webui"], PROMPTS).with_name("README.md").read_text(encoding="utf-8")
    assert "Other images" in headings(said) and "**webui**<br>images made elsewhere" in said


def test_figures_read_well_where_a_student_edits(handed_in: Path) -> None:
    said = (handed_in / "README.md").read_text(encoding="utf-8")
    assert "| 0.90 (0.80 to 0.95) |" in said and "&#46;" not in said
    assert said.count("| `base` |") == 1


def test_markdown_escapes_only_what_markdown_would_read() -> None:
    assert markdown_text("2.04 and 1.5") == "2.04 and 1.5"
    assert markdown_text("lora_rank4 at 2e-4, 95 %") == "lora_rank4 at 2e-4, 95 %"
    assert markdown_text("2. of 3") == "2&#46; of 3"  # would be a list
    assert markdown_text("- a | b") == "&#45; a &#124; b"


BROKEN = {
    "experiments/lora_rank2_lr2e-4/experiment.json": b'{"hyperparameters": {"ra',
    "results/dreambooth/images.json": b'{"images": [',
    "results/dreambooth/street_img1.png": b"\x89PNG\r\n",
    "results/dreambooth_canny_hat/control_1.png": b"no picture",
    "results/dreambooth/scores.json": b"{",
    "data/instance_images/dataset.json": b"[]",
}


@pytest.mark.parametrize("file", BROKEN)
def test_a_broken_file_costs_a_line_and_not_the_report(course: Path, file: str) -> None:
    made_up.controlled("dreambooth", PROMPTS)
    Path(file).write_bytes(BROKEN[file])
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        readme = report(prompts=PROMPTS).with_name("README.md").read_text(encoding="utf-8")
    lines = {str(one.message) for one in said}
    broken = Path(file).parent if "experiments" in file else Path(file)
    if file.endswith("street_img1.png"):  # it was never there, so to speak: the cell says how to make it
        assert "3 of 4 images: run sdlab generate dreambooth" in readme
    assert len(lines) == 1 and str(broken) in lines.pop()
    assert "dreambooth" in readme and "![" not in readme


def test_changes_outside_of_the_places_are_set_aside(
    course: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    readme = report(["dreambooth"], PROMPTS).with_name("README.md")
    text = readme.read_text(encoding="utf-8").replace("## Prompts", "## My prompts")
    readme.write_text(text, encoding="utf-8")
    report(["dreambooth"], PROMPTS)
    assert "kept in" in capsys.readouterr().out
    assert (readme.parent / "README.before_1.md").read_text(encoding="utf-8") == text
    report(["dreambooth"], PROMPTS)
    assert not (readme.parent / "README.before_2.md").exists()


def test_a_place_that_was_copied_keeps_both_texts(course: Path) -> None:
    readme = report(["dreambooth"], PROMPTS).with_name("README.md")
    edited(readme, "remark-dataset", "The first remark.")
    text = readme.read_text(encoding="utf-8")
    start, end = text.index("<!-- remark-dataset"), text.index("<!-- end of remark-dataset -->") + 30
    copied = text[:end] + "\n\n" + text[start:end].replace("first", "second") + text[end:]
    readme.write_text(copied, encoding="utf-8")
    report(["dreambooth"], PROMPTS)
    assert "The first remark.\n\nThe second remark." in readme.read_text(encoding="utf-8")


def test_a_place_without_its_end_is_named(course: Path) -> None:
    readme = report(["dreambooth"], PROMPTS).with_name("README.md")
    text = readme.read_text(encoding="utf-8").replace("<!-- end of introduction -->", "")
    readme.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match="lost the end of the place 'introduction'"):
        report(["dreambooth"], PROMPTS)
    assert readme.read_text(encoding="utf-8") == text


MARKDOWN = """Para with *it*, `code кириллица`, [link](https://a.b/c?x=1&y=2), <b onclick=x>raw</b> &amp; 🚀

> quote

1. one
   - nested

- loose

  second paragraph

- b

| a | b |
|---|--:|
| 1 | **2** |

```python
x = 1 < 2
```

---

![web](https://x.y/z.png)

## Sub *heading*
"""


def test_any_markdown_of_the_students_stands_in_the_pdf(course: Path) -> None:
    readme = report(["dreambooth"], PROMPTS).with_name("README.md")
    edited(readme, "introduction", MARKDOWN)
    page = report(["dreambooth"], PROMPTS)
    printed = text_of(page.with_name("report.pdf"))
    for text in ("кириллица", "<b onclick=x>raw</b> & [rocket]", "quote", "nested", "• loose", "x = 1 < 2"):
        assert text in printed
    html = page.read_text(encoding="utf-8")
    assert "<td>1</td>" in html and "https://x.y/z.png" in html and 'src="http' not in html


def test_a_picture_of_ones_own_is_shown_and_looked_at(course: Path) -> None:
    readme = report(["dreambooth"], PROMPTS).with_name("README.md")
    edited(readme, "remark-dataset", "![me](own.jpg)")
    with pytest.raises(ValueError, match=r"own\.jpg isn't there"):
        report(["dreambooth"], PROMPTS)
    Image.new("RGB", (60, 40), "red").save(readme.with_name("own.jpg"))
    html = report(["dreambooth"], PROMPTS).read_text(encoding="utf-8")
    assert re.search(r'<img src="data:image/webp;base64,[^"]+" alt="me"', html)
    edited(readme, "remark-dataset", 'one<br><img src="own.jpg" width="30" onload="alert(1)">')
    html = report(["dreambooth"], PROMPTS).read_text(encoding="utf-8")
    assert "<p>one<br><img src=" in html and "alert(1)" not in html.replace("onclick=alert(1)", "")
    exif = Image.Exif()
    exif[0x010E] = "taken at home"
    Image.new("RGB", (60, 40), "red").save(readme.with_name("own.jpg"), exif=exif)
    with pytest.raises(ValueError, match=r"own\.jpg holds EXIF"):
        report(["dreambooth"], PROMPTS)


SECRETS = {
    "Hugging Face": "hf_" + "aB3" * 11,
    "GitHub": "ghp_" + "aB3" * 12,
    "OpenAI": "sk-" + "proj-" + "aB3" * 9,
    "AWS": "AKIA" + "A1B2" * 4,
    "Civitai": "0123456789abcdef" * 2,
    "a web address": "https://civitai.com/api/download/1?token=abcdefgh12",
}


@pytest.mark.parametrize("service", SECRETS)
def test_a_token_is_found_and_not_shown(service: str) -> None:
    texts = {"README.md": f"I used {SECRETS[service]} for it"}
    with pytest.raises(ValueError, match=rf"README\.md.*a token of {service}.*after '") as found:
        scan.check(texts, {})
    assert SECRETS[service] not in str(found.value)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("see /home/me/photos/1.jpg", "/home/me/photos/1.jpg"),
        ("![x](/Users/me/x.png)", "/Users/me/x.png"),
        ('src="C:\\Users\\me\\x.png"', r"C:\Users\me\x.png"),
        ("~/work/x", "~/work/x"),
        ("file:///tmp/x", "file:///tmp/x"),
    ],
)
def test_a_path_of_this_machine_is_found(text: str, path: str) -> None:
    with pytest.raises(ValueError, match=re.escape(path)):
        scan.check({"README.md": text}, {})


@pytest.mark.parametrize(
    "text",
    [
        "and/or, 3/4 view, 24/7, km/h, https://github.com/a/b, pictures/a/b.png, </td></tr>, <br/>",
        "a08c337d5df0a988, 2e-4, --pretrained_model_name_or_path=experiments/exp1.1, sk-learn, hf_model",
        "0123456789abcdef0123456789abcdef01234567",  # a commit
        "MD5 of the weights: 0123456789abcdef0123456789abcdef",
        "woman/man, /woman/face/, a photo of sks woman /face/portrait/",
    ],
)
def test_what_is_no_secret_passes(text: str) -> None:
    scan.check({"README.md": text}, {})
    assert scan.shortened(text) == text


def test_the_machines_own_tokens_are_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CIVITAI_TOKEN", "open-sesame")
    with pytest.raises(ValueError, match="CIVITAI_TOKEN"):
        scan.check({"report.html": "<p>open-sesame</p>"}, {})


def test_a_secret_in_a_prompt_or_a_remark_stops_the_report(course: Path) -> None:
    readme = report(["dreambooth"], PROMPTS).with_name("README.md")
    before = {path: path.read_bytes() for path in readme.parent.rglob("*") if path.is_file()}
    edited(readme, "introduction", f"my token is {SECRETS['Hugging Face']}")
    before[readme] = readme.read_bytes()
    with pytest.raises(ValueError, match=r"Hugging Face: hf_aB3… after .*my token is"):
        report(["dreambooth", *RATES], PROMPTS)
    assert {path: path.read_bytes() for path in readme.parent.rglob("*") if path.is_file()} == before


def test_a_base_on_this_machine_is_named_without_its_path(course: Path) -> None:
    for path in Path("experiments").glob("*/experiment.json"):
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace('"mini"', '"/home/me/models/mine"'), encoding="utf-8")
    said = report(["dreambooth"], PROMPTS).with_name("README.md").read_text(encoding="utf-8")
    assert "--pretrained_model_name_or_path=mine" in said and "/home/me" not in said


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
    made_up.finished("lora_again", loras[1].hyperparameters, 3.2)  # the same training under another name
    assert [one.name for one in sweep_over("learning_rate", [*loras, Experiment("lora_again")])] == list(
        RATES
    )


def test_no_experiments_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="there are no experiments in experiments") as found:
        report(prompts=PROMPTS)
    suggested = re.findall(r"`sdlab (\S+) ([^`]*)`", str(found.value))
    assert suggested == [("train", "dreambooth")]  # a command that runs as it stands there
    with pytest.raises(ValueError, match="Unknown experiment"):
        report(["dreambooth"], PROMPTS)


def test_experiments_of_the_same_name_are_refused(course: Path) -> None:
    Path("experiments").rename("others")
    made_up.finished("dreambooth", DreamBooth(), 1.0)
    with pytest.raises(ValueError, match="got experiments/dreambooth, others/dreambooth"):
        report(["dreambooth", "others/dreambooth"], PROMPTS)


def test_loss_curves_are_drawn_and_smoothed_without_bias(course: Path) -> None:
    assert smoothed([2.0] * 50) == pytest.approx([2.0] * 50)
    drawn = loss_curves([Experiment("dreambooth")])
    assert drawn is not None and len(drawn.getcolors(10**6) or []) > 10
    assert loss_curves([Experiment("unheard_of")]) is None
