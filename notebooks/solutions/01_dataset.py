"""Solutions of notebook 01's exercises."""


def square_crop(width, height, x, y):
    """The largest square, its centre as near to the face (x, y) as the photo allows."""
    side = min(width, height)
    left = min(max(x - side // 2, 0), width - side)
    top = min(max(y - side // 2, 0), height - side)
    return left, top, left + side, top + side


def sharpness(grey):
    """The variance of the Laplacian (Pech-Pacheco et al. 2000)."""
    neighbours = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    return (4 * grey[1:-1, 1:-1] - neighbours).var()
