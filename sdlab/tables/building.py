"""From what is on disk to a table: which images stand in which cell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import chain, cycle, islice
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal, get_args

from sdlab.experiment import Experiment, names_of
from sdlab.files import placed
from sdlab.images import BASE, ImageRecord, Setting, by_setting, images_from_elsewhere, load_images
from sdlab.prompts import PromptSet, name_of
from sdlab.sampling import image_files
from sdlab.tables.contents import Cell, Heading, Table
from sdlab.tables.figures import METHOD_NAMES, differing, hyperparameters_of, written
from sdlab.words import Words

Side = Literal["experiments", "prompts"]
PROGRAMS = ("A1111", "ComfyUI")  # those that say how they made an image
OWN_PROMPTS = "PROMPTS.json"  # stands for the file of prompts that are the user's own
CONTROL_IMAGES = Path("data/control_images")
_AGAIN = (  # how `generate` is told to make images as others were made
    " --seed {first_seed} --sampler {sampler} --num_inference_steps {num_inference_steps}"
    " --guidance_scale {guidance_scale:g} --width {width} --height {height}"
)
By = Literal["control", "scale", "experiment", "prompt"]


def table(
    experiments: str | Experiment | Iterable[str | Experiment],
    prompts: PromptSet,
    *,
    results: str | Path = "results",
    root: str | Path = "experiments",
    images_per_cell: int = 4,
    rows: Side | None = None,
    columns: Side | None = None,
    reference: str | Path | Sequence[str | Path] | None = None,
    setting: int = 1,
    language: str = "en",
) -> Table:
    """Put the images of experiments side by side, one prompt beside the other.

    Args:
        experiments: names or experiments, in their order; "base" is the base model itself.
        prompts: the prompt set that the images were generated with.
        results: folder that `generate` wrote to.
        root: folder of the experiments, for the hyperparameters under the names.
        images_per_cell: 1, 2 or 4; four make a 2×2 picture as in homework A.
        rows: what stands in the rows, experiments unless `columns` says so; the other stands in the columns.
        columns: the same for the columns: "experiments" puts base, photos and experiments beside each other.
        reference: a photo of the subject, several, or a folder of them, as the first of the experiments.
        setting: which of the settings (seeds, guidance, sampler, size …) that the images were made with is
            shown: 1 is the newest, 2 the one before. A note says which, and how many images are left out.
        language: of captions and hints, "en" or "ru".

    Returns:
        The table. A cell without images says what to run. A folder of pictures `<prompt>_img<n>` in `results`
        that no experiment made is a row too, and is marked.

    Raises:
        ValueError: no experiment, rows and columns the same, or another number of images per cell.

    Taught in: notebooks/02
    """
    names = names_of(experiments)
    if not names:
        raise ValueError("a table needs at least one experiment. Name some, or take sdlab.experiment.find().")
    _check(rows, columns, get_args(Side))
    images = [image for name in names for image in load_images(name, results=results)]
    chosen, left_out = choose_setting(images, prompts, setting)
    folders, words = (Path(results).expanduser(), Path(root).expanduser()), Words(language)
    made = lay_out(names, prompts, chosen, *folders, images_per_cell, _photos(reference), words)
    if left_out and chosen is not None:
        note = words("setting_shown", setting=setting_text(chosen, words), count=left_out)
        made = replace(made, notes=(note,))
    return made.transposed() if rows == "prompts" or columns == "experiments" else made


def captions(names: Sequence[str], root: str | Path = "experiments", language: str = "en") -> list[Heading]:
    """Headings of experiments: method, learning rate, rank, and every hyperparameter that differs.

    One that isn't on this disk has no details.
    """
    words = Words(language)
    known = {name: hyperparameters_of(name, root) for name in names if name != BASE}
    headings = []
    for name in names:
        if name == BASE:
            headings.append(Heading(words("base"), (words("not_trained"),)))
            continue
        mine = known[name]
        peers = [values for values in known.values() if values.get("method") == mine.get("method")]
        shown = {"learning_rate", "rank", *differing(peers)}
        details = [written(key, value, language) for key, value in mine.items() if key in shown]
        method = METHOD_NAMES.get(mine.get("method", ""))
        headings.append(Heading(name, (method, *details) if method else tuple(details)))
    return headings


def lay_out(
    names: Sequence[str],
    prompts: PromptSet,
    setting: Setting | None,
    results: Path,
    root: Path,
    images_per_cell: int,
    photos: Sequence[Path],
    words: Words,
) -> Table:
    """The images of one setting (None: of those without records), photos and experiments in rows."""
    headings, cells, again = [], [], _again(prompts, setting)
    if photos:
        endless, alt = cycle(photos), words("photos_of_the_subject")
        headings.append(Heading(words("photos"), (words("of_the_subject"),)))
        shown = [tuple(islice(endless, images_per_cell)) for _ in prompts.prompts]
        cells.append(tuple(Cell(("photos", str(n)), alt, some) for n, some in enumerate(shown, 1)))
    for name, heading in zip(names, captions(names, root, words.language), strict=True):
        records = load_images(name, results=results, root=root)
        if len(records) < len(image_files(results / name)):
            records += images_from_elsewhere(name, results=results)
        programs = dict.fromkeys(one.elsewhere for one in records if one.elsewhere)
        command = placed(f"sdlab generate {name}{again}", root=root, results=results)
        if programs and name != BASE and not hyperparameters_of(name.split("@")[0], root):
            known = (one for one in programs if one in PROGRAMS)
            heading, command = replace(heading, details=(words("not_made_here"), *known)), ""
        headings.append(heading)
        how = records, setting, images_per_cell, command, words
        cells.append(tuple(_cell(name, prompt, *how) for prompt in prompts.prompts.items()))
    texts = tuple(Heading(name, text=text) for name, text in prompts.prompts.items())
    return Table(tuple(headings), texts, tuple(cells), images_per_cell, words.language)


def choose_setting(
    images: Iterable[ImageRecord], prompts: PromptSet, setting: int = 1
) -> tuple[Setting | None, int]:
    """The setting that is shown of those with these prompts, and how many images have another."""
    groups = by_setting(one for one in images if one.prompt == prompts.prompts.get(one.prompt_name))
    if not groups:
        return None, 0
    if not 1 <= setting <= len(groups):
        raise ValueError(
            f"setting must be 1 to {len(groups)}, as many as the images were made with, got {setting}. "
            "1 is the newest."
        )
    chosen = list(groups)[setting - 1]
    return chosen, sum(len(found) for one, found in groups.items() if one != chosen)


def prompts_of(experiments: str | Iterable[str], *, results: str | Path = "results") -> PromptSet:
    """The prompts that most of the experiments with images have images of; says which others it leaves out.

    Where they have no prompt in common, it is those of the first one's newest images.
    """
    names = names_of(experiments)
    made = [images for name in names if (images := load_images(name, results=results))]
    if made:
        setting, newest = next(iter(by_setting(made[0]).items()))
        count = Counter(pair for images in made for pair in {(i.prompt_name, i.prompt) for i in images})
        order = dict.fromkeys((i.prompt_name, i.prompt) for images in made for i in images)
        most = max(count.values())
        common = [pair for pair in order if 2 * count[pair] > most] if most > 1 else []
        found = dict(common or [(one.prompt_name, one.prompt) for one in newest])
        if left := dict.fromkeys(name for name, _ in order if name not in found):
            print(f"prompts that most experiments have no images of are left out: {', '.join(left)}")
        return PromptSet(found, setting.negative_prompt)
    raise ValueError(
        f"there are no images of {', '.join(names) or 'any experiment'} in {results}. "
        f"Run `{placed(' '.join(['sdlab generate', *names]), results=results)}` first."
    )


def photo_table(photos: Sequence[Path], language: str = "en", columns: int = 5) -> Table:
    """Photos in rows, without headings."""
    alt, blank = Words(language)("photos_of_the_subject"), Heading("")
    cells = [Cell(("photo", path.stem), f"{alt}, {path.stem}", (path,)) for path in photos]
    cells += [Cell("", "")] * (-len(cells) % columns)
    rows = tuple(tuple(cells[start : start + columns]) for start in range(0, len(cells), columns))
    return Table((blank,) * len(rows), (blank,) * columns, rows, 1, language)


def control_table(
    images: Sequence[ImageRecord],
    *,
    rows: By = "control",
    columns: By = "prompt",
    root: str | Path = "experiments",
    images_per_cell: int = 1,
    language: str = "en",
) -> Table:
    """Puts what `generate(…, control=…)` made side by side, each row's control image and map before it.

    Homework B has kinds of control in rows and prompts in columns, homework A experiments in columns.
    """
    if not images or not all(image.control for image in images):
        raise ValueError(
            "a control table needs images that were made with control. "
            "Use generate(..., control=Control(...)); scale 0 shows what is made without."
        )
    _check(rows, columns, get_args(By))
    if columns == "control":  # control image and control map stand before what they control
        turned = control_table(
            images, columns=rows, root=root, images_per_cell=images_per_cell, language=language
        )
        return turned.transposed()
    names, words = list(grouped(images, "experiment")), Words(language)
    experiments = dict(zip(names, captions(names, root, language), strict=True))
    across, cells, headings = grouped(images, columns), [], []
    for mine in grouped(images, rows).values():
        by_column = grouped(mine, columns)
        shown = [by_column.get(key, [])[:images_per_cell] for key in across]
        pairs = zip(shown, across.values(), strict=True)
        made = [_controlled_cell(*one, mine[0], root, words) for one in pairs]
        cells.append((*_sources(mine[0], words), *made))
        headings.append(_heading(mine, rows, experiments, words))
    sources = Heading(words("control_image")), Heading(words("control_map"))
    above = [_heading(column, columns, experiments, words) for column in across.values()]
    return Table(tuple(headings), (*sources, *above), tuple(cells), images_per_cell, language)


def grouped(images: Iterable[ImageRecord], by: By) -> dict[Any, list[ImageRecord]]:
    """Images by what they have in common: scales from weak to strong, all else as it was made."""
    groups: dict[Any, list[ImageRecord]] = {}
    for image in images:
        groups.setdefault(_KEYS[by](image), []).append(image)
    return dict(sorted(groups.items())) if by == "scale" else groups


def scales_of(image: ImageRecord) -> tuple[float, ...]:
    """The conditioning scale of each of its controls."""
    return tuple(one["scale"] for one in image.control)


_KEYS: dict[By, Callable[[ImageRecord], Any]] = {
    "control": lambda image: tuple((one["kind"], one["image"]) for one in image.control),
    "scale": scales_of,
    "experiment": attrgetter("experiment"),
    "prompt": attrgetter("prompt_name"),
}


def _check(rows: str | None, columns: str | None, sides: Sequence[str]) -> None:
    for what, value in (("rows", rows), ("columns", columns)):
        if value is not None and value not in sides:
            *first, last = map(repr, sides)
            raise ValueError(f"{what} must be {', '.join(first)} or {last}, got {value!r}.")
    if rows is not None and rows == columns:
        raise ValueError(f"rows and columns must differ, both are {rows!r}. Leave one of them out.")


def setting_text(setting: Setting, words: Words) -> str:
    """`seeds from 0, dpm++, 20 steps, guidance_scale 7.5, 128×128`."""
    return words("setting", **asdict(setting))


def _again(prompts: PromptSet, setting: Setting | None) -> str:
    """The options with which a command makes images of these prompts as others were made."""
    flags = f" --prompts {name_of(prompts) or OWN_PROMPTS}"
    return flags if setting is None else flags + _AGAIN.format(**asdict(setting))


def _cell(
    name: str,
    prompt: tuple[str, str],
    records: Iterable[ImageRecord],
    setting: Setting | None,
    wanted: int,
    command: str,
    words: Words,
) -> Cell:
    """An experiment's images of a prompt (name, text), none from another text or setting.

    The command makes those that are missing; it is empty for images made elsewhere.
    """
    there = [one for one in records if one.prompt_name == prompt[0] and one.number <= wanted]
    of_text = [one for one in there if one.elsewhere or one.prompt == prompt[1]]
    images = [one for one in of_text if one.elsewhere or one.setting == setting]
    hint = ""
    if len(images) < wanted and not command:
        hint = "" if images else words("no_image_of_prompt")
    elif len(images) < wanted:
        key = "some_images" if images else "no_images"
        if len(of_text) < len(there):
            key = "other_images"
        elif len(images) < len(of_text) and setting is not None:
            key = "other_setting"
        hint = words(key, having=len(images), wanted=wanted, command=command)
    alt, files = f"{name}, {prompt[0]}: {prompt[1]}", tuple(one.path for one in images)
    return Cell((name, prompt[0]), alt, files, hint)


def _photos(reference: str | Path | Sequence[str | Path] | None) -> list[Path]:
    paths = [reference] if isinstance(reference, str | Path) else reference or []
    folders = [image_files(path) if path.is_dir() else [path] for path in map(Path, paths)]
    photos = list(chain.from_iterable(folders))
    if reference is not None and not (photos and all(path.is_file() for path in photos)):
        named = ", ".join(map(str, paths))
        raise ValueError(f"reference must name photos or a folder of images, got {named!r}.")
    return photos


def _heading(
    images: Sequence[ImageRecord], by: By, experiments: Mapping[str, Heading], words: Words
) -> Heading:
    first = images[0]
    if by == "experiment":
        return experiments[first.experiment]
    if by == "prompt":
        return Heading(first.prompt_name, text=first.prompt)
    scale = words("scale", scale=", ".join(f"{value:g}" for value in scales_of(first)))
    if by == "scale":
        return Heading(scale)
    details = [*dict.fromkeys(one["image"] for one in first.control)]
    if len(grouped(images, "scale")) == 1:
        details.append(scale)
    return Heading(" + ".join(one["kind"] for one in first.control), tuple(details))


def _controlled_cell(
    images: Sequence[ImageRecord],
    column: Sequence[ImageRecord],
    row: ImageRecord,
    root: str | Path,
    words: Words,
) -> Cell:
    """The images, or what to run for some of this row's control and that column's experiment."""
    if not images:
        kinds = " ".join(f"--kind {one['kind']}" for one in row.control)
        image, scale = row.control[0]["image"], row.control[0]["scale"]
        image = CONTROL_IMAGES / image if (CONTROL_IMAGES / image).is_file() else image
        command = f"sdlab control --image {image} {kinds} --scale {scale:g}"
        command += f" --experiments {column[0].experiment}"
        command += _again(PromptSet({column[0].prompt_name: column[0].prompt}), row.setting)
        command = placed(command, root=root, results=row.path.parent.parent)
        return Cell("", "", hint=words("no_images", command=command))
    first, folder = images[0], images[0].path.parent.name
    alt = f"{folder}, {first.prompt_name}: {first.prompt}"
    return Cell((folder, first.prompt_name), alt, tuple(image.path for image in images))


def _sources(image: ImageRecord, words: Words) -> tuple[Cell, Cell]:
    """The control image and the control map; of several controls up to four."""
    folder = image.path.parent
    pictures = {one["image_sha256"]: folder / one["reference"] for one in image.control}
    maps = [folder / one["map"] for one in image.control]
    return (
        Cell((folder.name, "_image"), words("control_image"), tuple(pictures.values())[:4], whole=True),
        Cell((folder.name, "_map"), words("control_map"), tuple(maps)[:4], whole=True),
    )
