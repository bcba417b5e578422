"""Solutions of notebook 00's exercises."""


def predicted_x0(latents, noise, alpha_bar):
    """z_t = sqrt(alpha_bar) z_0 + sqrt(1 - alpha_bar) noise, solved for z_0."""
    return (latents - (1 - alpha_bar) ** 0.5 * noise) / alpha_bar**0.5


def rescaled(guided, conditional):
    """Lin et al. 2023, arXiv:2305.08891, equation 15: guidance without too much contrast."""
    dims = (1, 2, 3)
    return guided * conditional.std(dims, keepdim=True) / guided.std(dims, keepdim=True)
