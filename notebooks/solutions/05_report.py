"""Solutions of notebook 05's exercises."""

from statistics import mean, stdev


def mean_and_margin(values):
    """The mean, and half of the 95 % interval around it."""
    return mean(values), 1.96 * stdev(values) / len(values) ** 0.5


def unbeaten(figures):
    """The experiments that no other beats: as good in both, and better in one."""

    def beats(one, other):
        return one != other and one[0] >= other[0] and one[1] >= other[1]

    return {name for name, own in figures.items() if not any(beats(one, own) for one in figures.values())}
