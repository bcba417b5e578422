"""Are the homework's phenomena there on `mini`? Train the experiments over several seeds and measure images.

    python benchmarks/phenomena.py [--seeds 3] [--images 4] [--work cache_dir/phenomena]

The images are read by the mini world's own reader, see `sdlab.scores.mini_scores`:

- likeness: mean probability of the subject's traits, `sdlab.scores.TRAITS` (0 to 1);
- scene: share of images in which the reader finds the scene that the prompt asks for;
- class likeness: the likeness of images of the class prompt, which should stay the base model's.

By the mini CLIP, see `sdlab.score`: CLIP-I, CLIP-T, diversity, and PRES, the likeness of the class's images.

Figures are means over training seeds, each with the half width of the 95 % interval that those seeds give
(Student's t). What is trained and sampled already is not done again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from scipy import stats

from recipes.mini import world
from sdlab import HOMEWORK_A, PromptSet, generate, hyperparameters, prepare, profile, score, train
from sdlab.scores import mini_scores

PROMPTS = HOMEWORK_A.fill("sks woman")
CLASS = PromptSet({"class": hyperparameters("dreambooth").class_prompt})


def experiments() -> dict[str, dict[str, object]]:
    """Name to method and hyperparameters of what is compared."""
    chosen = profile("mini")
    best = chosen.lora_learning_rate
    loras = [(4, rate) for rate in chosen.lora_learning_rates] + [
        (r, best) for r in chosen.lora_ranks if r != 4
    ]
    return {
        "dreambooth": {"method": "dreambooth"},
        "dreambooth_no_prior": {"method": "dreambooth", "with_prior_preservation": False},
        **{
            f"lora_rank{rank}_lr{rate:g}": {"method": "lora", "rank": rank, "learning_rate": rate}
            for rank, rate in loras
        },
    }


def measure(name: str, work: Path, images: int) -> dict[str, float]:
    """Likeness, scene and class likeness of one experiment's images."""
    places = {"root": work / "experiments", "results": work / "results"}
    generate([name], PROMPTS, images_per_prompt=images, base="mini", progress=False, **places)
    generate([name], CLASS, images_per_prompt=4 * images, base="mini", progress=False, **places)
    scores = mini_scores([name], results=places["results"], prompt_names=PROMPTS.prompts)[name]
    classes = mini_scores([name], results=places["results"], prompt_names=CLASS.prompts)[name]
    figures = score(name, photos=work / "instance_images", **places)[name].figures
    return {
        "likeness": scores["likeness to the subject"][0],
        "scene": scores["scene as in the prompt"][0],
        "class likeness": classes["likeness to the subject"][0],
        **{key: figures[key][0] for key in ("CLIP-I", "CLIP-T", "diversity", "PRES")},
    }


def interval(values: list[float]) -> str:
    """Mean and half width of the 95 % interval."""
    if len(values) < 2:
        return f"{np.mean(values):.2f}"
    half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return f"{np.mean(values):.2f} ± {half:.2f}"


def main() -> None:
    """Train, generate, measure, print a Markdown table and write the figures as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3, help="training seeds")
    parser.add_argument("--images", type=int, default=4, help="images for each prompt")
    parser.add_argument("--work", type=Path, default=Path("cache_dir/phenomena"))
    options = parser.parse_args()
    work = options.work
    raw = world.photograph("woman", work / "raw_images")[0].parent
    dataset = prepare(raw, work / "instance_images", profile("mini").resolution)
    figures: dict[str, list[dict[str, float]]] = {"base": []}
    for seed in range(options.seeds):
        for name, changes in experiments().items():
            full = f"{name}_seed{seed}"
            chosen = hyperparameters(
                base="mini", instance_data_dir=str(dataset.folder), class_data_dir=str(work / "class_images"),
                seed=seed, **changes,
            )  # fmt: skip
            train(full, chosen, root=work / "experiments", progress=False)
            figures.setdefault(name, []).append(measure(full, work, options.images))
            print(full, {key: round(value, 3) for key, value in figures[name][-1].items()}, flush=True)
    figures["base"].append(measure("base", work, options.images))
    (work / "phenomena.json").write_text(json.dumps(figures, indent=1))
    columns = list(figures["base"][0])
    print(f"\n| experiment | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
    for name, rows in figures.items():
        print(f"| {name} | {' | '.join(interval([row[column] for row in rows]) for column in columns)} |")


if __name__ == "__main__":
    main()
