"""Are the homeworks' phenomena there on `mini`? Train the experiments over several seeds and measure images.

    python benchmarks/phenomena.py [--seeds 3] [--images 4] [--work cache_dir/phenomena]

The experiments are homework A's (DreamBooth, a sweep of the learning rate, then of the rank) and, as in
homework B, a LoRA on top of DreamBooth.

The images are read by the mini world's own reader, see `sdlab.scores.mini_scores`:

- likeness: mean probability of the subject's traits, `sdlab.scores.TRAITS` (0 to 1);
- scene: share of images in which the reader finds the scene that the prompt asks for;
- class likeness: the likeness of images of the class prompt, which should stay the base model's.

By the mini CLIP, see `sdlab.score`: CLIP-I, CLIP-T, diversity, and PRES, the likeness of the class's images.

Figures are means over training seeds, each with the half width of the 95 % interval that those seeds give
(Student's t). The second table holds them against what the homeworks found. What is trained and sampled
already is not done again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from recipes.mini import world
from sdlab import HOMEWORK_A, PromptSet, generate, hyperparameters, prepare, profile, score, train
from sdlab.scores import mini_scores

PROMPTS = HOMEWORK_A.fill("sks woman")
CLASS = PromptSet({"class": hyperparameters("dreambooth").class_prompt})
ON_DREAMBOOTH = {"learning_rate": 5e-4}
"""As gentle as homework B's LoRAs on top of DreamBooth."""


Figures = dict[str, list[dict[str, float]]]
"""Experiment -> per training seed, figure by name."""


def lora_name(rank: int, rate: float) -> str:
    """Of a LoRA in the sweeps."""
    return f"lora_rank{rank}_lr{rate:g}"


def experiments() -> dict[str, dict[str, Any]]:
    """Name to method and hyperparameters; a `base` is another experiment, of the same seed."""
    chosen = profile("mini")
    rank, best = chosen.lora_ranks[0], chosen.lora_learning_rate
    loras = [(rank, rate) for rate in chosen.lora_learning_rates] + [(r, best) for r in chosen.lora_ranks[1:]]
    return {
        "dreambooth": {"method": "dreambooth"},
        "dreambooth_no_prior": {"method": "dreambooth", "with_prior_preservation": False},
        **{lora_name(r, rate): {"method": "lora", "rank": r, "learning_rate": rate} for r, rate in loras},
        "lora_on_dreambooth": {"method": "lora", "base": "dreambooth"} | ON_DREAMBOOTH,
    }


def train_seed(name: str, changes: dict[str, Any], seed: int, instances: Path, work: Path) -> str:
    """Trains one experiment with one seed; gives the name with the seed."""
    root = work / "experiments"
    base = f"{changes['base']}_seed{seed}" if "base" in changes else "mini"
    chosen = hyperparameters(
        **changes | {"base": base}, root=root, instance_data_dir=str(instances),
        class_data_dir=str(work / "class_images"), seed=seed,
    )  # fmt: skip
    return train(f"{name}_seed{seed}", chosen, root=root, progress=False).name


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


def bars(figures: Figures) -> list[tuple[str, str, bool]]:
    """What the homeworks found: the finding, what was measured, whether it is there."""
    chosen = profile("mini")

    def mean(name: str, figure: str) -> float:
        return float(np.mean([row[figure] for row in figures[name]]))

    rates = [lora_name(chosen.lora_ranks[0], rate) for rate in chosen.lora_learning_rates]
    ranks = [lora_name(rank, chosen.lora_learning_rate) for rank in chosen.lora_ranks]
    base, tuned = mean("base", "likeness"), mean("dreambooth", "likeness")
    scenes = min(row["scene"] for row in figures["dreambooth"])
    drift = mean("dreambooth", "class likeness") - mean("base", "class likeness")
    best = max(mean(name, "likeness") for name in rates + ranks)
    lowest = abs(mean(rates[0], "likeness") - base)
    destroyed, on_top = mean(rates[-1], "scene"), mean("lora_on_dreambooth", "likeness")
    likeness = [[row["likeness"] for row in figures[name]] for name in ranks]
    labels = [f"rank {rank}" for rank in chosen.lora_ranks]
    order, ordered = against_the_best(dict(zip(labels, likeness, strict=True)))
    return [
        ("DreamBooth's likeness ≥ 0.85", f"{tuned:.2f}", tuned >= 0.85),
        ("every scene of its images right", f"{scenes:.0%} with the worst seed", scenes == 1),
        ("its class images' likeness ≤ 0.05 above the base's", f"{drift:+.2f}", drift <= 0.05),
        ("the best LoRA's likeness ≥ 0.85", f"{best:.2f}", best >= 0.85),
        ("the lowest rate within 0.03 of the base", f"{lowest:.2f}", lowest <= 0.03),
        ("scenes at the highest rate ≤ 30 %", f"{destroyed:.0%}", destroyed <= 0.3),
        ("a LoRA on top of DreamBooth at least as alike", f"{on_top - tuned:+.2f}", on_top >= tuned),
        ("rank 4 the best, or not to be told from it", order, ordered),
    ]


def against_the_best(likeness: dict[str, list[float]]) -> tuple[str, bool]:
    """The first rank beside each other one: ≈ where the seeds differ more; False if another is better."""
    (first, mine), *others = likeness.items()
    words, held = [], True
    for name, theirs in others:
        apart = np.subtract(mine, theirs)
        told = len(apart) > 1 and bool(stats.ttest_1samp(apart, 0).pvalue < 0.05)
        words.append(f"{first} {'≈' if not told else '>' if apart.mean() > 0 else '<'} {name}")
        held &= not (told and apart.mean() < 0)
    return ", ".join(words), held


def main() -> None:
    """Train, generate, measure, print two Markdown tables and write the figures as JSON."""
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
    figures: Figures = {"base": []}
    for seed in range(options.seeds):
        for name, changes in experiments().items():
            full = train_seed(name, changes, seed, dataset.folder, work)
            figures.setdefault(name, []).append(measure(full, work, options.images))
            print(full, {key: round(value, 3) for key, value in figures[name][-1].items()}, flush=True)
    figures["base"].append(measure("base", work, options.images))
    (work / "phenomena.json").write_text(json.dumps(figures, indent=1))
    columns = list(figures["base"][0])
    print(f"\n| experiment | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
    for name, rows in figures.items():
        print(f"| {name} | {' | '.join(interval([row[column] for row in rows]) for column in columns)} |")
    print("\n| finding | measured | |\n|---|---|---|")
    for finding, measured, held in bars(figures):
        print(f"| {finding} | {measured} | {'held' if held else '**missed**'} |")


if __name__ == "__main__":
    main()
