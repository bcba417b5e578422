"""Solutions of notebook 03's exercises."""


def lora_parameters(rank, d, k):
    """The numbers in B (d, rank) and A (rank, k)."""
    return rank * (d + k)
