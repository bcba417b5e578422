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

import pytest

torch = pytest.importorskip("torch")

from diffusers import StableDiffusionPipeline  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

from sdlab import mini  # noqa: E402
from sdlab.formats import original_weights  # noqa: E402

SCRIPT = Path(__file__).parents[1] / "download_and_convert.sh"
TOKEN = "secret-of-mine-42"
pytestmark = pytest.mark.skipif(
    os.name == "nt" or not shutil.which("curl"), reason="the script needs bash and curl"
)


class Handler(BaseHTTPRequestHandler):
    content = b""
    broken_off = 0

    def do_GET(self) -> None:
        kind = self.path.strip("/")
        asked = self.headers.get("Range", "")
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and kind != "no_ranges" else 0
        if kind == "token" and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.send_error(401)
            return
        if kind == "html":
            self.answer(200, b"<!DOCTYPE html><html>Please log in</html>")
            return
        length = len(self.content) + (500 if kind == "lies" else 0) - start
        body = self.content[start:]
        if kind == "breaks_off" and type(self).broken_off < 2:
            type(self).broken_off += 1
            body = body[: len(self.content) // 3]
        self.answer(206 if start else 200, body, length, start)

    def answer(self, status: int, body: bytes, length: int | None = None, start: int = 0) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        if status == 206:
            end = len(self.content) - 1
            self.send_header("Content-Range", f"bytes {start}-{end}/{len(self.content)}")
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that has the mini model as a single-file checkpoint."""
    path = tmp_path_factory.mktemp("served") / "model.safetensors"
    save_file(original_weights(StableDiffusionPipeline.from_pretrained(mini.path())), path)
    Handler.content = path.read_bytes()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


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
        timeout=300,
    )


@pytest.mark.parametrize("kind", ["plain", "breaks_off"])
def test_the_checkpoint_becomes_a_base_model(kind: str, address: str, tmp_path: Path) -> None:
    sha256 = hashlib.sha256(Handler.content).hexdigest()
    done = run(tmp_path, f"{address}/{kind}", sha256.upper())
    assert done.returncode == 0, done.stderr
    assert f"SHA-256: {sha256}" in done.stdout
    StableDiffusionPipeline.from_pretrained(tmp_path / "cache_dir/models/civitai_model")
    again = run(tmp_path, f"{address}/{kind}")
    assert again.returncode == 0 and "is there already, kept" in again.stdout


@pytest.mark.parametrize(("kind", "resumed"), [("plain", True), ("no_ranges", False)])
def test_an_interrupted_download_goes_on(kind: str, resumed: bool, address: str, tmp_path: Path) -> None:
    url = f"{address}/{kind}"
    folder = tmp_path / "cache_dir/models"
    folder.mkdir(parents=True)
    part = folder / f"{hashlib.sha256(url.encode()).hexdigest()[:12]}.part"
    part.write_bytes(Handler.content[:1_000_000])
    done = run(tmp_path, url, hashlib.sha256(Handler.content).hexdigest(), CONVERT_OPTIONS="--config nowhere")
    assert "going on after 1000000 bytes" in done.stdout
    assert ("begins again" in done.stdout) is not resumed
    assert "SHA-256:" in done.stdout and "should be" not in done.stderr  # the file is whole


def test_a_site_that_asks_for_a_token_gets_it_and_nobody_else(address: str, tmp_path: Path) -> None:
    refused = run(tmp_path, f"{address}/token", CIVITAI_TOKEN="")
    assert refused.returncode == 1 and "the model needs a token" in refused.stderr
    done = run(tmp_path, f"{address}/token", CIVITAI_TOKEN=TOKEN)
    assert done.returncode == 0, done.stderr
    assert TOKEN not in done.stdout + done.stderr + refused.stderr


@pytest.mark.parametrize(
    ("kind", "sha256", "message"),
    [
        ("html", "", "is a web page"),
        ("lies", "", "the connection broke off"),
        ("plain", "00ff", "the checksum should be 00ff"),
    ],
)
def test_what_is_wrong_is_said_and_no_model_is_made(
    kind: str, sha256: str, message: str, address: str, tmp_path: Path
) -> None:
    done = run(tmp_path, f"{address}/{kind}", sha256)
    assert done.returncode == 1 and message in done.stderr
    assert not (tmp_path / "cache_dir/models/civitai_model").exists()


def test_without_an_address_it_says_what_to_give(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert done.returncode == 1 and "no address" in done.stderr
