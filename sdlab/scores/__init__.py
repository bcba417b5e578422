"""Scores: likeness to the photos, fidelity to the prompt, diversity, prior preservation, memorisation."""

from sdlab.scores.choosing import Comparison, Recommendation, as_faithful, recommend
from sdlab.scores.measures import Interval, apart, interval
from sdlab.scores.plots import drift_table, nearest_photos, prompts_without
from sdlab.scores.scoring import TRAITS, mini_scores, scene_of, score
from sdlab.scores.tallies import LIKENESS, MEASURES, MINI_LIKENESS, Scores, Tally, load_scores, measure_name

__all__ = [
    "LIKENESS",
    "MEASURES",
    "MINI_LIKENESS",
    "TRAITS",
    "Comparison",
    "Interval",
    "Recommendation",
    "Scores",
    "Tally",
    "apart",
    "as_faithful",
    "drift_table",
    "interval",
    "load_scores",
    "measure_name",
    "mini_scores",
    "nearest_photos",
    "prompts_without",
    "recommend",
    "scene_of",
    "score",
]
