"""The panel and the explorers in JupyterLab, in a real browser; screenshots go to results/screenshots."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser import CHROMIUM, NARROW, ROOT, WIDE, Opened, Server, jupyterlab, opened

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium: apt install chromium"),
]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SIDE = 64
TRAIN = """
import sdlab
prompt = "portrait of sks woman, <img src=x onerror=alert(1)>"
chosen = sdlab.hyperparameters("lora", "mini", instance_data_dir="photos", resolution=64, train_batch_size=2,
    max_train_steps={steps}, checkpointing_steps=20, checkpoints_total_limit=None, validation_steps=20,
    validation_prompt=prompt, num_validation_images=1, learning_rate=2e-3)
lora = sdlab.train("{name}", chosen)
"""
PROMPTS = """
from sdlab import panels
prompts = sdlab.PromptSet({"street": "portrait of sks woman, on the street, at night",
    "hostile": "<img src=x onerror=alert(1)> sks woman, moon"})
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="there is no playwright: pip install playwright"
    )
    # as root, which CI often is, Chromium starts only without its sandbox; the pages are our own
    options = ["--no-sandbox"] if os.geteuid() == 0 else []
    with playwright.sync_playwright() as started:
        running = started.chromium.launch(executable_path=CHROMIUM, args=options)
        yield running
        running.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """JupyterLab in a folder that holds six drawn photos."""
    from recipes.mini.world import SUBJECTS, draw

    with jupyterlab(tmp_path_factory.mktemp("jupyterlab")) as running:
        (running.folder / "photos").mkdir()
        for number, picture in enumerate(SUBJECTS["woman"].photos()[:6]):
            draw(picture, SIDE).save(running.folder / "photos" / f"{number}.png")
        yield running


def steps_shown(notebook: Opened) -> int:
    return int(notebook.page.locator(".sdlab-panel progress").evaluate("bar => bar.value"))


def test_the_panel_moves_and_its_button_stops_and_saves(browser: Any, server: Server) -> None:
    cells = [TRAIN.format(name="stopped", steps=100_000), "print(lora.status)"]
    reached = "value => document.querySelector('.sdlab-panel progress')?.value >= value"
    with opened(browser, server, cells) as notebook:
        notebook.run_all()
        notebook.page.wait_for_function(reached, arg=1, timeout=60_000)
        before = steps_shown(notebook)
        notebook.page.wait_for_function(reached, arg=before + 30, timeout=60_000)
        panel = notebook.output(0).inner_text()
        for figure in ("left", "loss (smoothed)", "validation loss", "learning rate", "peak memory"):
            assert figure in panel
        notebook.page.locator("figcaption", has_text="after step").wait_for()
        assert notebook.page.locator("figcaption").first.inner_text() == "before training"
        notebook.screenshot("panel_running")
        notebook.page.get_by_role("button", name="Stop and save").click()
        notebook.wait(30)
        assert notebook.output(1).inner_text().strip() == "stopped"
        done = json.loads((server.folder / "experiments/stopped/experiment.json").read_text())["steps"]
        assert before + 30 <= done == steps_shown(notebook)
        assert (server.folder / f"experiments/stopped/checkpoints/step_{done:06d}/manifest.json").is_file()
        assert not notebook.page.get_by_role("button", name="Stop").count()  # what stays is a summary
        notebook.screenshot("panel_stopped")
        notebook.run_all()  # goes on, in a new panel
        notebook.page.get_by_role("button", name="Stop and save").wait_for()
        notebook.page.wait_for_function(reached, arg=done + 5, timeout=60_000)
        notebook.page.get_by_role("button", name="Stop and save").click()
        notebook.wait(30)
        assert f"going on after step {done}" in notebook.output(0).inner_text()
        assert steps_shown(notebook) >= done + 5
        assert not notebook.errors and not notebook.too_wide()
        notebook.resize(NARROW)
        notebook.screenshot("panel_stopped_narrow")
        assert not notebook.too_wide()


@pytest.fixture(scope="module")
def explorers(browser: Any, server: Server) -> Iterator[Opened]:
    """A notebook with a trained LoRA and all explorers, run."""
    cells = [
        TRAIN.format(name="lora", steps=40) + PROMPTS,
        'panels.checkpoint_slider("lora", prompts, num_inference_steps=4)',
        'panels.lora_scale_slider("lora", prompts, (0, 0.5, 1), num_inference_steps=4)',
        "images = sdlab.generate(['base', 'lora'], prompts, images_per_prompt=1, num_inference_steps=4)\n"
        "panels.wipe(images[0], images[2])",
        'shown = panels.table_filter(["base", "lora"], prompts, images_per_cell=1)\nshown',
        "shown.table()",
    ]
    with opened(browser, server, cells) as notebook:
        notebook.run_all()
        notebook.wait(120)
        yield notebook


@pytest.mark.parametrize(("cell", "what"), [(1, "step"), (2, "scale")])
def test_sliders_change_the_pictures_by_keyboard(explorers: Opened, cell: int, what: str) -> None:
    output = explorers.output(cell)
    last, first = output.locator(".frame").last, output.locator(".frame").first
    before = explorers.screenshot(f"{what}_last", last)
    output.locator(".noUi-handle").focus()
    for _ in range(2):
        explorers.page.keyboard.press("ArrowLeft")
    first.wait_for(state="visible")
    assert first.get_attribute("aria-label") == f"{what} 0"
    assert output.locator(".frame:visible").count() == 1
    assert explorers.screenshot(f"{what}_first", first) != before


def test_the_wipe_moves_by_keyboard(explorers: Opened) -> None:
    output = explorers.output(3)
    before = explorers.screenshot("wipe_middle", output.locator(".over"))
    output.locator(".noUi-handle").focus()
    explorers.page.keyboard.press("PageDown")
    place = "getComputedStyle(document.querySelector('.over')).getPropertyValue('--at')"
    explorers.page.wait_for_function(f"{place} !== '50%'")
    assert explorers.screenshot("wipe_left", output.locator(".over")) != before


def test_the_filter_hides_what_is_not_ticked_and_its_table_too(explorers: Opened) -> None:
    output = explorers.output(4)
    assert output.locator("td:visible").count() == 4
    output.get_by_role("checkbox", name="base").click()
    output.get_by_role("checkbox", name="hostile").click()
    output.locator("tbody tr").first.wait_for(state="hidden")
    output.locator("th", has_text="hostile").wait_for(state="hidden")
    assert output.locator("td:visible").count() == 1
    explorers.screenshot("filter", output)
    explorers.page.locator(".jp-CodeCell").nth(5).locator(".cm-content").click()
    explorers.page.keyboard.press("Control+Enter")
    explorers.page.wait_for_timeout(500)
    explorers.wait(20)
    assert explorers.output(5).locator("td").count() == 1


def test_a_picture_opens_in_full_size_and_closes_by_keyboard(explorers: Opened) -> None:
    first = explorers.output(4).locator("td button:visible").first
    first.focus()
    explorers.page.keyboard.press("Enter")
    full = explorers.page.locator(".sdlab-full:visible")
    assert full.count() == 1 and full.locator("img").first.bounding_box()["width"] >= 256
    assert full.locator("img").first.get_attribute("alt")
    explorers.screenshot("zoom")
    explorers.page.keyboard.press("Escape")
    assert full.count() == 0


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_explorers_fit_the_page_and_prompts_stay_text(explorers: Opened, width: int) -> None:
    explorers.resize(width)
    assert not explorers.too_wide()
    for cell in range(1, 6):
        explorers.output(cell).scroll_into_view_if_needed()
        explorers.screenshot(f"explorer_{cell}_{width}")
    assert not explorers.errors
    assert not explorers.page.locator("img[src='x']").count()


def test_a_dark_theme_is_readable(explorers: Opened) -> None:
    explorers.resize(WIDE)
    explorers.page.evaluate(
        "jupyterapp.commands.execute('apputils:change-theme', {theme: 'JupyterLab Dark'})"
    )
    explorers.page.wait_for_timeout(1500)
    for cell, inner in ((0, ".sdlab-panel"), (1, ".frame:visible"), (4, "table")):
        explorers.output(cell).scroll_into_view_if_needed()
        explorers.screenshot(f"dark_{cell}")
        colour = explorers.output(cell).locator(inner).first.evaluate("e => getComputedStyle(e).color")
        assert min(int(part) for part in colour[4:-1].split(",")[:3]) > 150  # light letters
    explorers.page.evaluate(
        "jupyterapp.commands.execute('apputils:change-theme', {theme: 'JupyterLab Light'})"
    )
    explorers.page.wait_for_timeout(500)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_committed_notebooks_open_without_errors_and_fit(browser: Any, server: Server, path: Path) -> None:
    with opened(browser, server, path) as notebook:
        for width in (WIDE, NARROW):
            notebook.whole(f"{path.stem}_{width}", width)
            assert not notebook.too_wide()
        assert not notebook.errors
