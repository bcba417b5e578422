"""Solutions of notebook 02's exercises."""


def dreambooth_loss(prediction, noise, weight):
    """Ruiz et al. 2022, arXiv:2208.12242, equation 2, for a batch of photos and as many class images."""
    photos, class_images = (prediction - noise).square().chunk(2)
    return photos.mean() + weight * class_images.mean()


def best_step(rows):
    """The step whose validation loss is lowest."""
    measured = [row for row in rows if "validation_loss" in row]
    return min(measured, key=lambda row: row["validation_loss"])["step"]


def snr_weight(alpha_bar, gamma):
    """Hang et al. 2023, arXiv:2303.09556, section 3.4: min(SNR, gamma) / SNR."""
    ratio = alpha_bar / (1 - alpha_bar)
    return ratio.clamp(max=gamma) / ratio
