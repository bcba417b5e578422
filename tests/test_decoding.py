"""Whatever lies in a folder of photos: an upright RGB picture comes of it, or a refusal that says why."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pillow_heif import register_heif_opener

from sdlab.photos import UnusablePhoto, decode, load_image
from tests import hostile

# How a picture is stored whose EXIF orientation turns it upright again.
STORED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def saved(image: Image.Image, path: Path, orientation: int, *, as_bytes: bool = False) -> Path:
    """A file as a phone held sideways writes it."""
    register_heif_opener()
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = image.transpose(STORED[orientation]) if orientation > 1 else image
    stored.save(path, exif=exif.tobytes() if as_bytes else exif, quality=95)
    return path


def test_400_hostile_and_odd_files_become_rgb_or_a_named_refusal(tmp_path: Path) -> None:
    written = hostile.make_all(tmp_path)
    assert sum(map(len, written.values())) >= 400
    seen = hostile.decoded(tmp_path)
    width, height = hostile.SIZE
    for name, (said, seconds) in seen["outcomes"].items():
        assert seconds < 5, f"{name} took {seconds:.1f} s"
        if isinstance(said, str):
            assert len(said) > 10, name
            assert not name.startswith(("whole_", "mode_")), f"{name} is refused: {said}"
        else:
            mode, size, full = said
            assert mode == "RGB" and size == full, (name, said)
            assert not name.startswith(("bomb_", "exotic_")), name
            if not name.startswith("fuzzed_"):  # a fuzzed header may say another size, and keep its word
                assert size == [width, height], (name, said)
    assert seen["peak"] < 1000  # MB


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "heic"])
def test_every_exif_orientation_gives_the_same_picture(ending: str, tmp_path: Path) -> None:
    from skimage.data import astronaut

    image = Image.fromarray(astronaut()).crop((0, 0, 512, 384)).resize((320, 240))
    wanted = np.asarray(image, dtype=int)
    for orientation in range(1, 9):
        # HEIC holds the turn in a box of its own (as phones write it), or in EXIF alone
        for as_bytes in (False, True):
            path = saved(image, tmp_path / f"a.{ending}", orientation, as_bytes=as_bytes)
            seen = decode(path)
            assert seen.size == seen.image.size == (320, 240)
            assert np.abs(np.asarray(seen.image, dtype=int) - wanted).mean() < 3  # of 255: JPEG's error at 95
            assert not seen.image.getexif()
            turned = [note for note in seen.notes if "upright" in note]
            assert len(turned) == (orientation > 1)


def test_transparency_grey_cmyk_and_sixteen_bits_become_rgb(tmp_path: Path) -> None:
    Image.new("RGBA", (100, 100), (255, 0, 0, 0)).save(tmp_path / "alpha.png")
    Image.new("L", (100, 100), 77).save(tmp_path / "grey.png")
    Image.new("CMYK", (100, 100), (0, 255, 255, 0)).save(tmp_path / "cmyk.jpg")
    Image.new("I;16", (100, 100), 32768).save(tmp_path / "deep.png")
    palette = Image.new("P", (100, 100), 1)
    palette.putpalette([0, 0, 0, 10, 200, 10])
    palette.save(tmp_path / "palette.png")
    seen = {p.stem: decode(p).image.getpixel((50, 50)) for p in tmp_path.iterdir()}
    assert seen["alpha"] == (255, 255, 255)
    assert seen["grey"] == (77, 77, 77)
    assert seen["cmyk"][0] > 200 and seen["cmyk"][1] < 60
    assert seen["deep"] == (128, 128, 128)  # 32768 of 65535: scaled, not saturated
    assert seen["palette"] == (10, 200, 10)
    grey = decode(tmp_path / "alpha.png", background="#808080")
    assert grey.image.getpixel((50, 50)) == (128, 128, 128)
    assert grey.notes == ("transparent parts laid on #808080",)


def test_of_an_animation_the_first_frame_is_taken_with_a_note(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (100, 100), colour) for colour in ("red", "blue", "lime")]
    for ending in ("gif", "webp", "tiff"):
        path = tmp_path / f"a.{ending}"
        frames[0].save(path, save_all=True, append_images=frames[1:])
        seen = decode(path)
        assert seen.image.getpixel((50, 50))[0] > 200 and "first frame of several" in seen.notes


def test_a_phones_wide_colours_are_brought_to_srgb(tmp_path: Path) -> None:
    from PIL import ImageCms

    from sdlab.photos.decode import to_srgb

    # a profile whose colours differ from sRGB: Lab would not be RGB, so a linear-light one is made of XYZ
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.new("RGB", (100, 100), (200, 100, 50)).save(tmp_path / "a.png", icc_profile=profile)
    seen = decode(tmp_path / "a.png")
    assert seen.profile == profile
    same = to_srgb(seen.image, seen.profile).getpixel((5, 5))
    assert all(abs(one - other) <= 1 for one, other in zip(same, (200, 100, 50), strict=True))
    assert to_srgb(seen.image, b"broken").getpixel((5, 5)) == (200, 100, 50)


def test_a_pngs_text_cannot_pass_for_a_profile_or_an_orientation(tmp_path: Path) -> None:
    from PIL.PngImagePlugin import PngInfo

    text = PngInfo()
    for name in ("icc_profile", "original_orientation", "exif"):
        text.add_text(name, "6")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (200, 100)).save(tmp_path / "a.png", pnginfo=text, exif=exif)
    seen = decode(tmp_path / "a.png")
    assert seen.size == (100, 200) and seen.profile == b""


@pytest.mark.parametrize(
    ("size", "said"), [((9000, 8000), "limit is 50 million"), ((40, 400), "at least 64")]
)
def test_too_large_and_too_small_are_refused_before_decoding(
    size: tuple[int, int], said: str, tmp_path: Path
) -> None:
    Image.new("1", size).save(tmp_path / "a.png")
    with pytest.raises(UnusablePhoto, match=said):
        decode(tmp_path / "a.png")


def test_training_sees_what_prepare_sees(workplace: Path) -> None:
    import torch

    from sdlab.models import resolve
    from sdlab.training.latents import encode_images

    grey = np.linspace(0, 255, 64 * 64).round().reshape(64, 64)
    Image.fromarray((grey * 257).astype(np.uint16)).save(workplace / "deep.png")  # not pure white
    Image.fromarray(grey.astype(np.uint8)).save(workplace / "plain.png")
    face = Image.effect_noise((64, 64), 50).convert("RGB")
    Image.merge("RGBA", (*face.split(), Image.linear_gradient("L").resize((64, 64)))).save(
        workplace / "cut_out.png"
    )
    load_image(workplace / "cut_out.png").save(workplace / "on_white.png")  # not on black
    face.transpose(STORED[6]).save(workplace / "turned.png", exif=orientation(6))
    face.save(workplace / "upright.png")
    names = ("deep", "plain", "cut_out", "on_white", "turned", "upright")
    files = [workplace / f"{name}.png" for name in names]
    vae = resolve("mini").load(torch.float32).vae
    mean = encode_images(vae, files, 64, torch.device("cpu")).mean
    for one in (0, 2, 4):
        assert torch.allclose(mean[one], mean[one + 1], atol=0.05), names[one]
    (workplace / "deep.png").write_bytes(b"")
    with pytest.raises(
        ValueError, match=r"deep\.png can't be read as an image: the file is empty\. Delete it"
    ):
        load_image(workplace / "deep.png")


def test_latents_that_an_older_decoder_cached_are_encoded_anew(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    from sdlab.models import resolve
    from sdlab.training import latents

    Image.effect_noise((64, 64), 50).convert("RGB").save(workplace / "a.png")
    vae, files, cpu = resolve("mini").load(torch.float32).vae, [workplace / "a.png"], torch.device("cpu")
    monkeypatch.setattr(latents, "DECODER_VERSION", latents.DECODER_VERSION - 1)
    right = latents.encode_images(vae, files, 64, cpu).mean
    (older,) = latents.CACHE.iterdir()
    save_file({name: torch.zeros_like(value) for name, value in load_file(older).items()}, older)
    assert not latents.encode_images(vae, files, 64, cpu).mean.any()  # it is read from the cache
    monkeypatch.undo()
    assert torch.equal(latents.encode_images(vae, files, 64, cpu).mean, right)


def orientation(number: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = number
    return exif
