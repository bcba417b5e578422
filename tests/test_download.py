"""download_and_convert.sh against a server on loopback that does what servers do."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

torch = pytest.importorskip("torch")

from diffusers import StableDiffusionPipeline  # noqa: E402

from sdlab import mini  # noqa: E402
from sdlab.exports import export_model  # noqa: E402

SCRIPT = Path(__file__).parents[1] / "download_and_convert.sh"
TOKEN = "secret-of-mine-42"
WRONG = "00ff"  # a checksum that ends the script before the conversion, with the file's true one printed
pytestmark = pytest.mark.skipif(
    os.name == "nt" or not shutil.which("curl"), reason="the script needs bash and curl"
)


class Site(BaseHTTPRequestHandler):
    """What stands at an address is said by its path: /breaks_off/1 breaks off twice, and so on."""

    content = b""
    asked: ClassVar[dict[str, list[dict[str, str]]]] = {}  # the headers of all requests, by path

    def do_GET(self) -> None:
        kind = self.path.split("/")[1]
        before = self.asked.setdefault(self.path, [])
        before.append(dict(self.headers))
        start = int(self.headers.get("Range", "bytes=0-")[6:-1]) if kind != "no_ranges" else 0
        if kind == "token" and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.send_error(401)
        if kind == "redirect":
            return self.answer(302, b"", Location=f"http://localhost:{self.server.server_port}/plain/target")
        if kind == "html":
            return self.answer(200, b"<!DOCTYPE html><html>Please log in</html>")
        if kind == "gone":
            return self.send_error(404)
        if start >= len(self.content):
            return self.answer(416, b"", **{"Content-Range": f"bytes */{len(self.content)}"})
        body, length = self.content[start:], len(self.content) - start
        if kind == "never_whole" or (kind == "breaks_off" and len(before) <= 2):
            body = body[: len(self.content) // 3 if len(before) <= 2 else 0]
        if kind == "lies":
            length += 500
        end = len(self.content) - 1
        place = {"Content-Range": f"bytes {start}-{end}/{len(self.content)}"} if start else {}
        return self.answer(206 if start else 200, body, length, **place)

    def answer(self, status: int, body: bytes, length: int | None = None, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(length or len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that has the mini model as a single-file checkpoint."""
    file = export_model("mini", tmp_path_factory.mktemp("served") / "model.safetensors")
    Site.content = file.read_bytes()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture(scope="module")
def sha256(site: str) -> str:
    return hashlib.sha256(Site.content).hexdigest()


def run(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The script as a user runs it, with mini's configuration in place of Stable Diffusion 1.5's."""
    commands = Path(sys.executable).parent
    settings = {
        **os.environ,
        "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}",
        "RETRY_DELAY": "0",
        "CONVERT_OPTIONS": f"--config {mini.path()}",
        **environment,
    }
    return subprocess.run(
        ["bash", str(SCRIPT), *arguments],
        cwd=folder,
        env=settings,
        capture_output=True,
        text=True,
        timeout=120,
    )


def part(folder: Path, url: str) -> Path:
    """Where the script keeps what it has of a download."""
    place = folder / "cache_dir/models"
    place.mkdir(parents=True, exist_ok=True)
    return place / f"{hashlib.sha256(url.encode()).hexdigest()[:12]}.part"


@pytest.mark.slow
def test_a_checkpoint_becomes_a_base_model_though_the_connection_breaks_off_twice(
    site: str, sha256: str, tmp_path: Path
) -> None:
    done = run(tmp_path, f"{site}/breaks_off/1", sha256.upper())
    assert done.returncode == 0, done.stderr
    assert f"SHA-256: {sha256}" in done.stdout
    third = len(Site.content) // 3
    assert f"going on after {third} bytes\ngoing on after {2 * third} bytes" in done.stdout
    StableDiffusionPipeline.from_pretrained(tmp_path / "cache_dir/models/civitai_model")
    again = run(tmp_path, f"{site}/breaks_off/1")
    assert again.returncode == 0 and "is there already, kept" in again.stdout


@pytest.mark.parametrize(
    ("kind", "there", "begins_again"), [("plain", 1_000_000, False), ("no_ranges", 1_000_000, True)]
)
def test_an_interrupted_download_goes_on(
    kind: str, there: int, begins_again: bool, site: str, sha256: str, tmp_path: Path
) -> None:
    url = f"{site}/{kind}/resumed"
    part(tmp_path, url).write_bytes(Site.content[:there])
    done = run(tmp_path, url, WRONG)
    assert f"going on after {there} bytes" in done.stdout
    assert ("begins again" in done.stdout) is begins_again
    assert f"SHA-256: {sha256}" in done.stdout


def test_a_download_that_was_whole_already_is_not_made_again(site: str, sha256: str, tmp_path: Path) -> None:
    url = f"{site}/plain/whole"
    part(tmp_path, url).write_bytes(Site.content)
    assert f"SHA-256: {sha256}" in run(tmp_path, url, WRONG).stdout
    assert len(Site.asked["/plain/whole"]) == 1


def test_a_length_that_is_too_large_does_not_keep_the_file_from_being_whole(
    site: str, sha256: str, tmp_path: Path
) -> None:
    assert f"SHA-256: {sha256}" in run(tmp_path, f"{site}/lies/1", WRONG).stdout


def test_a_token_goes_to_its_own_site_alone_and_is_never_printed(
    site: str, sha256: str, tmp_path: Path
) -> None:
    others = {"CIVITAI_TOKEN": TOKEN, "HF_TOKEN": TOKEN, "DOWNLOAD_TOKEN": ""}
    refused = run(tmp_path, f"{site}/token/1", WRONG, **others)
    assert refused.returncode == 1 and "refused (401): it wants a token" in refused.stderr
    done = run(tmp_path, f"{site}/token/1", WRONG, DOWNLOAD_TOKEN=TOKEN)
    assert f"SHA-256: {sha256}" in done.stdout
    redirected = run(tmp_path, f"{site}/redirect/1", WRONG, DOWNLOAD_TOKEN=TOKEN)
    assert f"SHA-256: {sha256}" in redirected.stdout
    assert "Authorization" in Site.asked["/redirect/1"][0]
    assert "Authorization" not in Site.asked["/plain/target"][0]
    for said in (refused, done, redirected):
        assert TOKEN not in said.stdout + said.stderr


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("plain", f"the checksum should be {WRONG}"),
        ("never_whole", "broke off 5 times"),
        ("gone", "no such file (404)"),
        pytest.param("html", "is a web page", marks=pytest.mark.slow),
    ],
)
def test_what_is_wrong_is_said_and_no_model_is_made(
    kind: str, message: str, site: str, tmp_path: Path
) -> None:
    done = run(tmp_path, f"{site}/{kind}/wrong", *[WRONG] * (kind != "html"))
    assert done.returncode == 1 and message in done.stderr
    assert not (tmp_path / "cache_dir/models/civitai_model").exists()


def test_the_address_may_be_written_into_the_script(site: str, sha256: str, tmp_path: Path) -> None:
    text = SCRIPT.read_text(encoding="utf-8").replace('URL=""', f'URL="{site}/plain/written"', 1)
    own = tmp_path / "own.sh"
    own.write_text(text.replace('SHA256=""', f'SHA256="{WRONG}"', 1), encoding="utf-8")
    done = subprocess.run(["bash", str(own)], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert f"SHA-256: {sha256}" in done.stdout


def test_without_an_address_it_says_what_to_give(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert done.returncode == 1 and "no address" in done.stderr
