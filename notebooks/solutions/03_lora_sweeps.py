"""Solutions of notebook 03's exercises."""


def lora_parameters(rank, d, k):
    """The numbers in B (d, rank) and A (rank, k)."""
    return rank * (d + k)


def merged(W, A, B, alpha, scale):
    """Hu et al. 2021, arXiv:2106.09685, equation 3, with the update scaled."""
    return W + scale * alpha / len(A) * B @ A


def share_of_rank(update, rank):
    """How much of an update's squared size its largest singular values have."""
    squares = update.svd().S.square()
    return squares[:rank].sum() / squares.sum()
