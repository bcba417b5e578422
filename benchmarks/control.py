"""What do canny, depth and pose carry over on `mini`, and what do they cost? Measured on held-out pictures.

    python benchmarks/control.py [--samples 100] [--experiments NAME ...] [--work cache_dir/control]

Control images are drawn pictures of the mini world that no model was trained on; their maps are made by the
annotators, as a user's are, and so are the maps of the generated images. Two settings:

- same scene: the prompt describes the control image;
- other scene: the control image shows the person in the studio, the prompt puts the person somewhere else, as
  the homework does with its five prompts.

Figures:

- canny: share of the control map's edges that have an edge of the image's own map within 2 pixels;
- depth: rank correlation (Spearman) of the control map and the image's own map, mean over images;
- pose: share of the control map's joints that the image has within 6 % of its side;
- scene: share of images in which the mini world's reader finds the prompt's scene.

With `--experiments` it measures the subject's likeness (see `sdlab.scores.TRAITS`) through control at scales
0.5 and 1: the course's control images × homework A's prompts. The last table holds the figures against what
control should do and cost; likeness of the first experiment named, which should be a DreamBooth.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.ndimage import distance_transform_edt
from scipy.stats import spearmanr

from recipes.mini import world
from recipes.mini.evaluation import asked_pictures, wilson
from recipes.mini.evaluation import sheet as side_by_side
from recipes.mini.world.captions import described
from sdlab import HOMEWORK_A, Control, generate, mini
from sdlab.control import ControlMap, NothingFound, control_map, control_options, with_controlnets
from sdlab.control.annotators import estimate_depth, estimate_pose
from sdlab.control.maps import KINDS, canny_map
from sdlab.mini import reader
from sdlab.sampling import choose_sampling, ready_pipeline, sample
from sdlab.scores import mini_scores
from sdlab.tables import control_table

NEAR_EDGE = 2  # pixels
NEAR_JOINT = 0.06  # of the side
TOGETHER = 10
LIKENESS_SCALES = (0.5, 1.0)
AGREEMENT = {"canny": (0.78, 0.74), "depth": (0.94, 0.88), "pose": (0.90, 0.88)}
"""At least, at scale 1: same scene, other scene."""
LIKENESS = {"without": 0.85, "canny 1": 0.7, "depth 1": 0.7, "pose 1": 0.7}
"""At least, of a DreamBooth's images."""
SETTINGS = ("same scene", "other scene")


def canny_agreement(control: Image.Image, image: Image.Image) -> float:
    """Share of the control map's edges near an edge of the image."""
    wanted, there = (np.asarray(one.convert("L")) > 127 for one in (control, canny_map(image)))
    if not there.any():
        return 0.0
    return float((distance_transform_edt(~there)[wanted] <= NEAR_EDGE).mean())


def depth_agreement(control: Image.Image, image: Image.Image) -> float:
    """Rank correlation of the control map and the image's estimated depth."""
    found = estimate_depth(image, str(mini.annotator_path("depth")))
    return float(spearmanr(np.asarray(control.convert("L")).ravel(), found.ravel()).statistic)


def pose_agreement(control: np.ndarray, image: Image.Image) -> float:
    """Share of the joints seen in the control image that the image has nearby."""
    people = estimate_pose(image, str(mini.annotator_path("pose")))
    seen = control[:, 2] > 0
    if not people:
        return 0.0
    apart = np.hypot(*(people[0][seen, :2] - control[seen, :2]).T) / image.width
    return float(((apart <= NEAR_JOINT) & (people[0][seen, 2] > 0)).mean())


def agreement(kind: str, made: ControlMap, image: Image.Image) -> float:
    """How well an image keeps to its control map."""
    if kind == "canny":
        return canny_agreement(made.image, image)
    if kind == "depth":
        return depth_agreement(made.image, image)
    people = estimate_pose(made.reference, str(mini.annotator_path("pose")))
    return pose_agreement(people[0], image)


def control_maps(
    pictures: list[world.Picture], other: bool, work: Path
) -> tuple[list[world.Picture], dict[str, list[ControlMap]]]:
    """The maps of each kind, made by the annotators; pictures without one are left out."""
    folder = work / ("studio" if other else "held_out")
    folder.mkdir(parents=True, exist_ok=True)
    side = choose_sampling("mini").width
    kept: list[world.Picture] = []
    maps: dict[str, list[ControlMap]] = {kind: [] for kind in KINDS}
    for picture in pictures:
        file = folder / f"{picture.seed}.png"
        world.draw(replace(picture, scene="studio") if other else picture).save(file)
        try:
            mine = [control_map(Control(kind, file), side) for kind in KINDS]
        except NothingFound as reason:
            print(f"left out: {reason}")
            continue
        kept.append(picture)
        for one in mine:
            maps[one.control.kind].append(one)
    return kept, maps


def images_of(
    pictures: list[world.Picture], maps: list[ControlMap] | None, scale: float
) -> list[Image.Image]:
    """An image for each picture's description, with its map or without control."""
    sampling = choose_sampling("mini", sampler="unipc")
    pipeline = ready_pipeline("mini", sampling)
    if maps:
        pipeline = with_controlnets(pipeline, maps[:1])
    images = []
    for start in range(0, len(pictures), TOGETHER):
        prompts = [described(picture) for picture in pictures[start : start + TOGETHER]]
        seeds = list(range(start, start + len(prompts)))
        options: dict[str, Any] = {}
        if maps:
            batch = maps[start : start + TOGETHER]
            options = control_options(batch[:1]) | {"image": [one.image for one in batch]}
            options["controlnet_conditioning_scale"] = scale
        images += sample(pipeline, prompts, seeds, sampling, **options)
    return images


def measured(
    kind: str, pictures: list[world.Picture], maps: list[ControlMap], images: list[Image.Image]
) -> dict[str, float]:
    """Agreement of images with their maps, and scenes as in their prompts."""
    kept = [agreement(kind, one, image) for one, image in zip(maps, images, strict=True)]
    found = reader.read(images)["scene"]
    right = [world.ATTRIBUTES["scene"][i] == p.scene for i, p in zip(found, pictures, strict=True)]
    low, high = wilson(sum(right), len(right))
    half = 1.96 * float(np.std(kept, ddof=1)) / len(kept) ** 0.5
    scenes = {"scene": float(np.mean(right)), "scene_low": low, "scene_high": high}
    return {"agreement": float(np.mean(kept)), "half_width": half, **scenes}


def annotators(pictures: list[world.Picture]) -> dict[str, float]:
    """How well mini's annotators see held-out drawn pictures, where depth and joints are known."""
    depths, joints = [], []
    for picture in pictures:
        truth = world.truth(picture)
        depths.append(spearmanr(estimate_depth(truth.image, str(mini.annotator_path("depth"))).ravel(),
                                truth.depth.ravel()).statistic)  # fmt: skip
        known = truth.keypoints.copy()
        known[1] = (known[2] + known[5]) / 2  # the neck of COCO's points, see `openpose_from_coco`
        joints.append(pose_agreement(known, truth.image))
    return {"depth": float(np.mean(depths)), "pose": float(np.mean(joints)), "pictures": len(pictures)}


def likeness(names: list[str], root: Path, work: Path) -> dict[str, dict[str, float]]:
    """The subject's likeness without and with control, mean over control images and prompts."""
    prompts = HOMEWORK_A.fill("sks woman")
    options: dict[str, Any] = {"images_per_prompt": 1, "sampler": "unipc", "base": "mini", "progress": False}
    options |= {"root": root, "results": work / "results"}
    made = {"without": generate(names, prompts, **options)}
    for kind in KINDS:
        for scale in LIKENESS_SCALES:
            column = made.setdefault(f"{kind} {scale:g}", [])
            for image in sorted(Path("data/control_images").glob("*.png")):
                try:
                    column += generate(names, prompts, control=Control(kind, image, scale=scale), **options)
                except NothingFound as reason:
                    print(f"left out: {reason}")
        table = control_table(made[f"{kind} 1"], rows="control", columns="experiment", root=root)
        table.save(work / f"experiments_{kind}.png")
    figures: dict[str, dict[str, float]] = {name: {} for name in names}
    for column, images in made.items():
        for name in names:
            folders = dict.fromkeys(one.path.parent.name for one in images if one.experiment == name)
            scores = mini_scores(folders, results=work / "results", prompt_names=prompts.prompts)
            values = [one["likeness to the subject"][0] for one in scores.values()]
            figures[name][column] = float(np.mean(values))
    return figures


def steering(pictures: list[world.Picture], options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """How well images keep to their maps and prompts; prints a table and saves sheets of scale 1."""
    figures = {}
    print("\n| kind | prompt | scale | agreement | scene |\n|---|---|---|---|---|")
    for setting in SETTINGS:
        kept, maps = control_maps(pictures, setting == "other scene", options.work)
        free = images_of(kept, None, 0)
        for kind in options.kinds:
            for scale in options.scales:
                images = images_of(kept, maps[kind], scale) if scale else free
                found = figures[f"{kind}, {setting}, {scale:g}"] = measured(kind, kept, maps[kind], images)
                agreed = f"{found['agreement']:.2f} ± {found['half_width']:.2f}"
                print(f"| {kind} | {setting} | {scale:g} | {agreed} | {found['scene']:.0%} |", flush=True)
                if scale == 1:
                    shown = zip(maps[kind][:16], images[:16], strict=True)
                    parts = [part for one, image in shown for part in (one.reference, one.image, image)]
                    side_by_side(parts, 12).save(options.work / f"{kind}_{setting.replace(' ', '_')}.png")
    return figures


def bars(figures: dict[str, Any]) -> list[tuple[str, float, float]]:
    """What should be reached: name, figure, its least value; of what was measured."""
    found = []
    for kind, least in AGREEMENT.items():
        for setting, bar in zip(SETTINGS, least, strict=True):
            if one := figures.get(f"{kind}, {setting}, 1"):
                found.append((f"{kind}'s agreement, {setting}", one["agreement"], bar))
                found.append((f"scenes with {kind}, {setting}", one["scene"], 1.0))
    for row in list(figures.get("likeness", {}).values())[:1]:
        found += [(f"likeness, {column}", row[column], bar) for column, bar in LIKENESS.items()]
    return found


def main() -> None:
    """Measure, print Markdown tables and write the figures as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--kinds", nargs="+", default=list(KINDS))
    parser.add_argument("--scales", type=float, nargs="+", default=[0.0, 0.5, 1.0])
    parser.add_argument("--experiments", nargs="*", default=[])
    parser.add_argument("--root", type=Path, default=Path("experiments"))
    parser.add_argument("--work", type=Path, default=Path("cache_dir/control"))
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    pictures = asked_pictures(options.samples)
    figures: dict[str, Any] = {"samples": options.samples, "annotators": annotators(pictures)}
    print("annotators on drawn pictures:", figures["annotators"], flush=True)
    figures |= steering(pictures, options)
    if options.experiments:
        figures["likeness"] = likeness(options.experiments, options.root, options.work)
        columns = next(iter(figures["likeness"].values()))
        print(f"\n| likeness | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
        for name, row in figures["likeness"].items():
            print(f"| {name} | {' | '.join(f'{row[column]:.2f}' for column in columns)} |")
    (options.work / "control.json").write_text(json.dumps(figures, indent=1))
    print("\n| figure | measured | at least | |\n|---|---|---|---|")
    for name, value, least in bars(figures):
        print(f"| {name} | {value:.2f} | {least:g} | {'held' if value >= least else '**missed**'} |")


if __name__ == "__main__":
    main()
