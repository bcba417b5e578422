"""Tables: what stands in the cells, in every form, whatever the prompts say."""

from __future__ import annotations

import json
import re
import shlex
import time
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pypdf import PdfReader

from sdlab.cli import parse
from sdlab.config import number
from sdlab.experiment import DreamBooth, Experiment, LoRA
from sdlab.images import generate, load_images
from sdlab.prompts import HOMEWORK_A, PromptSet
from sdlab.tables import Table, captions, control_table, prompts_of, table
from sdlab.typeset import printable
from tests import course as made_up
from tests.course import HOSTILE, controlled

PROMPTS = PromptSet({"street": "portrait of sks woman, on the street", "moon": "sks woman on the moon"})


def text_of(pdf: Path) -> str:
    """What a PDF says, its lines joined."""
    return " ".join(" ".join(page.extract_text() for page in PdfReader(pdf).pages).split())


def image(path: Path, colour: str = "red", side: int = 128) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (side, side), colour).save(path)
    return path


@pytest.fixture
def course(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two LoRAs, a DreamBooth and the base model's images."""
    monkeypatch.chdir(tmp_path)
    for name, chosen in {
        "dreambooth": DreamBooth(learning_rate=2e-6),
        "lora_a": LoRA(rank=4, learning_rate=2e-4, instance_data_dir="/home/me/secret"),
        "lora_b": LoRA(rank=8, learning_rate=2e-4, max_train_steps=500),
    }.items():
        Experiment(name).begin(chosen, {})
    for name in ("base", "dreambooth", "lora_a", "lora_b"):
        for prompt in PROMPTS.prompts:
            for n in range(1, 5):
                image(tmp_path / "results" / name / f"{prompt}_img{n}.png")
    return tmp_path


NAMES = ["base", "dreambooth", "lora_a", "lora_b"]


class Tags(HTMLParser):
    """The elements that a browser would make of some HTML."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_rows_are_experiments_and_columns_prompts(course: Path) -> None:
    made = table(NAMES, PROMPTS)
    assert [row.title for row in made.rows] == ["base model", "dreambooth", "lora_a", "lora_b"]
    assert [column.title for column in made.columns] == ["street", "moon"]
    assert made.cells[2][1].images == tuple(Path(f"results/lora_a/moon_img{n}.png") for n in range(1, 5))
    turned = table(NAMES, PROMPTS, rows="prompts")
    assert turned.cells[1][2] == made.cells[2][1]
    assert turned.rows == made.columns


def test_base_and_photos_stand_in_columns_beside_experiments(course: Path) -> None:
    image(course / "data/instance_images/1.png", "green")
    made = table(NAMES, PROMPTS, columns="experiments", reference="data/instance_images")
    assert [column.title for column in made.columns] == ["photos", "base model", *NAMES[1:]]
    assert [row.title for row in made.rows] == list(PROMPTS.prompts)
    assert made.cells[1][2].images == tuple(Path(f"results/dreambooth/moon_img{n}.png") for n in range(1, 5))
    assert table(NAMES, PROMPTS, columns="prompts") == table(NAMES, PROMPTS, rows="experiments")
    with pytest.raises(ValueError, match="rows and columns must differ, both are 'prompts'"):
        table(NAMES, PROMPTS, rows="prompts", columns="prompts")


def test_captions_name_what_differs_and_no_folder(course: Path) -> None:
    details = {heading.title: heading.details for heading in captions(NAMES)}
    assert details["base model"] == ("not trained",)
    assert details["dreambooth"] == ("DreamBooth", "learning_rate 2e-6")
    assert details["lora_a"] == ("LoRA", "learning_rate 2e-4", "max_train_steps 800", "rank 4")
    assert details["lora_b"] == ("LoRA", "learning_rate 2e-4", "max_train_steps 500", "rank 8")
    assert "secret" not in table(NAMES, PROMPTS).html()


@pytest.mark.parametrize(("count", "size"), [(1, (260, 260)), (2, (260, 129)), (4, (260, 260))])
def test_pictures_of_one_two_and_four_images(course: Path, count: int, size: tuple[int, int]) -> None:
    for n, colour in enumerate(["red", "lime", "blue", "yellow"], 1):
        image(course / f"results/base/street_img{n}.png", colour)
    made = table(["base"], PROMPTS, images_per_cell=count)
    picture = made.picture(made.cells[0][0])
    assert picture is not None and picture.size == size
    corners = [picture.getpixel(at) for at in ((10, 10), (250, 10))]
    assert corners == [(255, 0, 0), (255, 0, 0) if count == 1 else (0, 255, 0)]
    if count == 4:
        assert picture.getpixel((10, 250)) == (0, 0, 255)


def test_a_missing_image_says_what_to_run(course: Path) -> None:
    (course / "results/lora_b/moon_img4.png").unlink()
    html = table(["lora_b", "later"], PROMPTS).html()
    assert "3 of 4 images: run sdlab generate lora_b" in html
    assert html.count("no images yet: run sdlab generate later") == 2


@pytest.mark.slow
def test_the_command_in_an_empty_cell_fills_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    prompts = HOMEWORK_A.fill("sks woman")
    how = {"images_per_prompt": 1, "num_inference_steps": 1, "seed": 7, "resolution": 64, "progress": False}
    generate("base", prompts.first(1), **how)
    empty = table(["base"], prompts, images_per_cell=1).cells[0][1].hint
    command = empty.removeprefix("no images yet: run sdlab ")
    assert command.startswith("generate base --prompts homework_a --seed 7")
    run = parse(shlex.split(f"{command} --images_per_prompt 1"))
    assert run is not None
    run()
    cells = table(["base"], prompts, images_per_cell=1).cells[0]
    assert all(cell.images and not cell.hint for cell in cells)


def test_one_experiment_needs_no_list_and_commands_name_other_folders(
    course: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [row.title for row in table("lora_a", PROMPTS).rows] == ["lora_a"]
    (course / "results").rename(course / "res")
    (course / "experiments").rename(course / "exps")
    (course / "res/lora_b/moon_img4.png").unlink()
    made = table("lora_b", PROMPTS, root="exps", results="res")
    assert made.cells[0][1].hint.endswith("lora_b --prompts PROMPTS.json --root exps --results res")
    monkeypatch.setenv("HOME", str(course))
    at_home = table("lora_b", PROMPTS, root="~/exps", results="~/res")
    assert at_home.rows == made.rows and at_home.cells[0][0] != made.cells[0][1]


def test_images_from_elsewhere_have_no_command(course: Path) -> None:
    image(course / "results/friend/street_img1.png")
    made = table(["base", "friend"], PROMPTS, images_per_cell=1)
    assert made.cells[1][0].images and made.cells[1][1].hint == "no image of this prompt"


def test_a_missing_controlled_image_says_what_to_run(course: Path) -> None:
    for name in ("dreambooth", "lora_a"):
        controlled(name, PROMPTS)
    controlled("dreambooth", PROMPTS, kind="pose")
    folders = ("dreambooth_canny_hat", "lora_a_canny_hat", "dreambooth_pose_hat")
    images = [image for folder in folders for image in load_images(folder)]
    made = control_table(images, columns="experiment")
    assert made.cells[0][3].images and not made.cells[1][3].images
    command = (
        "sdlab control --image hat.png --kind pose --scale 1 --experiments lora_a --prompts PROMPTS.json"
    )
    assert made.cells[1][3].hint.startswith(f"no images yet: run {command} --seed 0 --sampler unipc")
    Path("data/control_images").mkdir(parents=True)
    Path("data/control_images/hat.png").touch()
    assert (
        "--image data/control_images/hat.png" in control_table(images, columns="experiment").cells[1][3].hint
    )
    assert "--kind pose" in text_of(made.save(course / "control.pdf"))


def test_prompts_are_those_that_the_experiments_have_in_common(course: Path) -> None:
    more = PromptSet({**PROMPTS.prompts, "moon_again": "the moon again"})
    for name, prompts in (("dreambooth", more), ("base", PROMPTS)):
        made_up.images(name, prompts)
        made_up.recorded(name, prompts, 4)
    assert prompts_of("dreambooth").prompts == more.prompts
    assert prompts_of(["dreambooth", "base"]).prompts == PROMPTS.prompts
    assert prompts_of(["base", "dreambooth"]).prompts == PROMPTS.prompts


def test_captions_and_hints_in_russian(course: Path) -> None:
    (course / "results/base/moon_img4.png").unlink()
    shown = table(["base", "lora_a"], PROMPTS, language="ru").html()
    assert "базовая модель" in shown and "изображений 3 из 4, выполните: sdlab generate base" in shown
    assert "промпты полностью" in shown
    with pytest.raises(ValueError, match="one of en, ru, got 'fr'"):
        table(["base"], PROMPTS, language="fr")


def test_images_of_other_words_are_not_shown_as_these(course: Path) -> None:
    record = {
        "file": "street_img1.png", "experiment": "base", "prompt_name": "street", "number": 1,
        "prompt": "something else", "negative_prompt": "", "seed": 0, "num_inference_steps": 20,
        "guidance_scale": 7.5, "sampler": "dpm++", "resolution": 128, "model": "x",
    }  # fmt: skip
    (course / "results/base/images.json").write_text(json.dumps({"images": [record]}))
    made = table(["base"], PROMPTS, images_per_cell=1)
    assert made.cells[0][0].images == ()
    assert "another prompt" in made.cells[0][0].hint
    assert made.cells[0][1].images


def recorded(name: str, made: str, **values: Any) -> None:
    """Says in images.json that an experiment's images were made with these values."""
    usual = {
        "num_inference_steps": 20,
        "guidance_scale": 7.5,
        "sampler": "dpm++",
        "width": 128,
        "height": 128,
    }
    first = values.pop("first_seed", 0)
    rows = [
        {
            "file": f"{prompt}_img{n}.png", "experiment": name, "prompt_name": prompt, "number": n,
            "prompt": text, "negative_prompt": "", "seed": first + n - 1, "model": "x", "made": made,
            **usual, **values,
        }
        for prompt, text in PROMPTS.prompts.items()
        for n in range(1, 5)
    ]  # fmt: skip
    (Path("results") / name / "images.json").write_text(json.dumps({"images": rows}))


def test_a_table_shows_one_setting_and_says_which(course: Path) -> None:
    recorded("base", "2026-01-01")
    recorded("lora_a", "2026-01-01")
    recorded("lora_b", "2026-01-02", first_seed=100, guidance_scale=5.0)
    made = table(["base", "lora_a", "lora_b"], PROMPTS)
    assert made.cells[1][0].images == () and len(made.cells[2][0].images) == 4
    assert made.cells[1][0].hint.endswith(
        "sdlab generate lora_a --prompts PROMPTS.json --seed 100 --sampler dpm++ --num_inference_steps 20 "
        "--guidance_scale 5 --width 128 --height 128"
    )
    said = "seeds from 100, sampler dpm++, 20 steps, guidance_scale 5, 128×128"
    for text in (made.html(), made.markdown(course / "out"), text_of(made.save(course / "one.pdf"))):
        assert said in text and "Left out, because made with another setting: 16." in text
    older = table(["base", "lora_a", "lora_b"], PROMPTS, setting=2)
    assert len(older.cells[1][0].images) == 4 and older.cells[2][0].images == ()
    assert table(["base", "lora_a"], PROMPTS).notes == ()
    with pytest.raises(ValueError, match="setting must be 1 to 2"):
        table(["base", "lora_a", "lora_b"], PROMPTS, setting=3)


def test_cells_of_names_that_join_alike_are_not_mixed(course: Path) -> None:
    red, lime = (
        image(course / "results/a/b_c_img1.png", "red"),
        image(course / "results/a_b/c_img1.png", "lime"),
    )
    made = table(["a", "a_b"], PromptSet({"b_c": "x", "c": "x"}), images_per_cell=1)
    colours = [made.picture(cell).getpixel((9, 9)) for cell in (made.cells[0][0], made.cells[1][1])]  # type: ignore[union-attr]
    assert colours == [(255, 0, 0), (0, 255, 0)] and red != lime
    links = re.findall(r'src="([^"]+)"', made.markdown(course / "out"))
    assert len(set(links)) == 2


def test_images_made_elsewhere_are_a_row_of_their_own(course: Path) -> None:
    image(course / "results/webui/street_img1.jpg", "blue")
    image(course / "results/webui/moon.webp", "lime", side=256)  # a grid of four
    made = table(["lora_a", "webui"], PROMPTS, images_per_cell=1)
    assert made.rows[1].details == ("images made elsewhere",)
    assert [path.name for cell in made.cells[1] for path in cell.images] == ["street_img1.jpg", "moon.webp"]
    assert not any(cell.hint for cell in made.cells[1])


def test_pictures_keep_their_shape(course: Path) -> None:
    for n in range(1, 5):
        Image.new("RGB", (256, 192), "red").save(course / f"results/base/street_img{n}.png")
    for count, size in ((1, (260, 195)), (2, (260, 97)), (4, (260, 196))):
        made = table(["base"], PROMPTS, images_per_cell=count)
        picture = made.picture(made.cells[0][0])
        assert picture is not None and picture.size == size


def test_two_images_stand_above_each_other_where_they_would_be_small(course: Path) -> None:
    prompts = PromptSet({f"p{k}": "x" for k in range(5)})
    for prompt in prompts.prompts:
        for n in (1, 2):
            image(course / f"results/base/{prompt}_img{n}.png")
    made = table(["base"], prompts, images_per_cell=2)
    picture = made.picture(made.cells[0][0])
    assert picture is not None and picture.height > 1.9 * picture.width
    shown = [attributes for tag, attributes in Tags(made._repr_html_()).found if tag == "img"]
    assert all(int(str(one["width"])) >= 128 and one["tabindex"] == "0" for one in shown)


def test_reference_photos_are_the_first_row(course: Path) -> None:
    for n in range(3):
        image(course / f"data/instance_images/{n}.png", "green")
    made = table(["base"], PROMPTS, images_per_cell=2, reference="data/instance_images")
    assert made.rows[0].title == "photos"
    assert [path.stem for cell in made.cells[0] for path in cell.images] == ["0", "1", "2", "0"]
    with pytest.raises(ValueError, match="reference must name photos"):
        table(["base"], PROMPTS, reference="nowhere.png")


def test_hostile_prompts_are_only_text(course: Path) -> None:
    for name in HOSTILE.prompts:
        image(course / f"results/base/{name}_img1.png")
    made = table(["base"], HOSTILE, images_per_cell=1)
    tags = Tags(made.html())
    assert not {"script", "iframe"} & {tag for tag, _ in tags.found}
    assert all(not name.startswith("on") for _, attributes in tags.found for name in attributes)
    images = [attributes for tag, attributes in tags.found if tag == "img"]
    assert len(images) == 4
    assert all(str(one["src"]).startswith("data:image/webp;base64,") and one["alt"] for one in images)
    assert HOSTILE.prompts["html"] in str(images[0]["alt"])

    markdown = made.markdown(course / "out")
    tags = Tags(markdown)
    assert {tag for tag, _ in tags.found} == {"img", "br"}
    assert all(not name.startswith("on") for _, attributes in tags.found for name in attributes)
    assert "$" not in markdown and "`" not in markdown and "](" not in markdown
    rows = [line for line in markdown.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in rows} == {6}  # four prompts and the heading: no cell was broken
    made.save(course / "hostile.png")
    made.transposed().save(course / "hostile.png", title=HOSTILE.prompts["html"])
    printed = text_of(made.save(course / "hostile.pdf", title=HOSTILE.prompts["html"]))
    for text in (
        "<script>alert(2)</script>",
        "cost $x_{$",
        "портрет женщины",
        "[woman][rocket]",
        "שלום",
        "עולם",  # pypdf gives words of a line that runs from right to left in the page's order
    ):
        assert text in printed
    page = made.save(course / "hostile.html").read_text(encoding="utf-8")
    assert "script" not in {tag for tag, _ in Tags(page).found}


def test_letters_that_the_font_lacks_are_named() -> None:
    assert printable("a 🚀 👩🏽‍🚀 中") == "a [rocket] [woman][rocket] [U+4E2D]"
    assert printable("שלום й 😀 ñ") == "שלום й 😀 ñ"


def test_wide_tables_are_turned_and_long_ones_have_headings_on_each_page(course: Path) -> None:
    names = [f"lora_{n}" for n in range(14)]
    for name in names:
        for prompt in PROMPTS.prompts:
            image(course / f"results/{name}/{prompt}_img1.png", side=64)
    long = PdfReader(table(names, PROMPTS, images_per_cell=1).save(course / "long.pdf"))
    assert len(long.pages) > 1
    assert all(page.mediabox.width < page.mediabox.height for page in long.pages)
    for page in long.pages:
        assert ("lora_" in page.extract_text()) == ("moon" in page.extract_text())
    wide = PdfReader(
        table(names, PROMPTS, columns="experiments", images_per_cell=1).save(course / "wide.pdf")
    )
    assert wide.pages[0].mediabox.width > wide.pages[0].mediabox.height
    said = text_of(course / "wide.pdf")
    assert all(said.count(name) >= 1 for name in names)
    assert said.count("sks woman on the moon") >= 3  # both halves have the row's heading, and the list below


def _lower_edge(found: list[float], operator: bytes, _: object, matrix: list[float], *rest: object) -> None:
    if operator == b"Do":  # a picture, its height and lower edge in points from the page's
        found.append(min(matrix[5], matrix[5] + matrix[3]))


def test_no_picture_is_cut_at_the_end_of_a_page(course: Path) -> None:
    names = ["base", "dreambooth", "lora_a", "lora_b"] * 4
    for page in PdfReader(table(names, PROMPTS).save(course / "t.pdf")).pages:
        edges: list[float] = []

        page.extract_text(visitor_operand_before=partial(_lower_edge, edges))
        assert edges and min(edges) > 14 / 25.4 * 72


def test_markdown_links_are_relative_and_there(course: Path) -> None:
    folder = course / "out"
    markdown = table(NAMES, PROMPTS).markdown(folder)
    links = re.findall(r'src="([^"]+)"', markdown)
    assert len(links) == 8
    assert all((folder / link).is_file() and not link.startswith("/") for link in links)
    assert str(course) not in markdown


def test_ten_experiments_of_twenty_images_stay_below_a_megabyte(tmp_path: Path) -> None:
    prompts = PromptSet({f"prompt{k}": "a prompt" for k in range(1, 6)})
    for e in range(10):
        for k in range(1, 6):
            for n in range(1, 5):
                path = tmp_path / f"results/e{e}/prompt{k}_img{n}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.effect_noise((128, 128), 90).save(path)  # noise is the hardest to compress
    start = time.perf_counter()
    html = table([f"e{e}" for e in range(10)], prompts, results=tmp_path / "results").html()
    assert time.perf_counter() - start < 15  # 2 s when nothing else runs; a busy machine is allowed more
    assert len(html) < 1_000_000


def test_png_shows_every_row_and_column(course: Path) -> None:
    path = table(NAMES, PROMPTS).save(course / "table.png", title="A title")
    with Image.open(path) as drawn:
        assert drawn.width > 2 * 260 and drawn.height > 4 * 260
        red = sum(
            count for count, colour in drawn.convert("RGB").getcolors(10**6) or [] if colour == (255, 0, 0)
        )
    assert red > 0.9 * 8 * 260 * 260 * 0.98
    assert table(NAMES, PROMPTS).save(course / "table.webp").stat().st_size < path.stat().st_size
    with pytest.raises(ValueError, match=r"must end with \.png"):
        table(NAMES, PROMPTS).save(course / "table.bmp")


def test_wrong_arguments_are_named(course: Path) -> None:
    with pytest.raises(ValueError, match="1, 2 or 4, got 3"):
        table(NAMES, PROMPTS, images_per_cell=3)
    with pytest.raises(ValueError, match="at least one experiment"):
        table([], PROMPTS)
    with pytest.raises(ValueError, match="'experiments' or 'prompts', got 'columns'"):
        table(NAMES, PROMPTS, rows="columns")  # type: ignore[arg-type]


def test_numbers_are_written_as_people_write_them() -> None:
    figures = [2e-4, 5e-3, 1.2, 800, 0.9, 1e-8, 0.0]
    assert [number(n) for n in figures] == ["2e-4", "5e-3", "1.2", "800", "0.9", "1e-8", "0"]


def test_a_table_shows_itself_in_a_notebook(course: Path) -> None:
    made = table(NAMES, PROMPTS)
    assert isinstance(made, Table)
    assert made._repr_html_() == made.html()
    assert "position: sticky" in made.html() and "overflow-x: auto" in made.html()


def test_the_ending_of_the_file_says_the_form(course: Path) -> None:
    made = table(NAMES, PROMPTS)
    assert "data:image/webp" in made.save(course / "out/table.html").read_text(encoding="utf-8")
    markdown = made.save(course / "out/table.md").read_text(encoding="utf-8")
    assert all((course / "out" / link).is_file() for link in re.findall(r'src="([^"]+)"', markdown))
    assert made.save(course / "out/table.jpg").read_bytes().startswith(b"\xff\xd8")
