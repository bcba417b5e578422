"""Solutions of notebook 04's exercises."""


def controlled_features(features, residuals, scale):
    """What a ControlNet makes of the UNet's features, block by block."""
    return [feature + scale * residual for feature, residual in zip(features, residuals, strict=True)]


def controlled_steps(steps, start, end):
    """The denoising steps that lie between two shares of all steps."""
    return [step for step in range(steps) if step / steps >= start and (step + 1) / steps <= end]


def depth_to_grey(depth):
    """0 for the farthest, 255 for the nearest."""
    span = max(depth.max() - depth.min(), 1e-6)
    return ((depth - depth.min()) / span * 255).round()
