"""Scores: likeness to the photos, fidelity to the prompt, diversity, prior preservation, memorisation."""

from sdlab.scores.comparison import Comparison
from sdlab.scores.measures import Interval, apart, interval
from sdlab.scores.mini_world import TRAITS, mini_scores, scene_of
from sdlab.scores.recommendation import Recommendation, as_faithful, recommend
from sdlab.scores.scoring import score
from sdlab.scores.sheets import drift_table, nearest_photos, prompts_without
from sdlab.scores.tallies import LIKENESS, MEASURES, Scores, Tally, load_scores, measure_name

__all__ = [
    "LIKENESS",
    "MEASURES",
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
