"""The training loss: how far the UNet's prediction of the noise is off."""

from __future__ import annotations

import torch
from diffusers import DDPMScheduler
from diffusers.training_utils import compute_snr

from sdlab.training.data import Batch


def noise_losses(
    prediction: torch.Tensor,
    scheduler: DDPMScheduler,
    batch: Batch,
    *,
    snr_gamma: float | None = None,
) -> torch.Tensor:
    """Gives the loss of each image: mean (prediction - noise)², or the same for the velocity.

    Args:
        prediction: The UNet's output, (batch, channels, height, width).
        scheduler: The noise schedule, with its `prediction_type`.
        batch: What was predicted.
        snr_gamma: Weight each image by min(SNR, gamma) / SNR (velocity: / (SNR + 1)); None doesn't.

    Returns:
        (batch,), in float32.

    Raises:
        ValueError: The base model predicts something else than noise or velocity.

    Source:
        Ho et al. 2020, arXiv:2006.11239, equation 14; Salimans and Ho 2022, arXiv:2202.00512 (velocity);
        Hang et al. 2023, arXiv:2303.09556 (min-SNR).
    """
    kind = scheduler.config.prediction_type
    if kind not in ("epsilon", "v_prediction"):
        raise ValueError(
            f"The base model predicts {kind!r}; epsilon and v_prediction can be trained. Take another."
        )
    target = batch.noise
    if kind == "v_prediction":
        target = scheduler.get_velocity(batch.latents, batch.noise, batch.timesteps)
    losses = (prediction.float() - target.float()).square().mean(dim=(1, 2, 3))
    if snr_gamma is None:
        return losses
    snr = compute_snr(scheduler, batch.timesteps)
    return losses * snr.clamp(max=snr_gamma) / (snr if kind == "epsilon" else snr + 1)


def dreambooth_loss(
    losses: torch.Tensor, prior_loss_weight: float | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Combines the images' losses: instance + prior_loss_weight · class.

    Args:
        losses: (batch,); with prior preservation the second half are class images.
        prior_loss_weight: None without prior preservation.

    Returns:
        The loss, and its parts for the log: (1,) instance, or (2,) instance and class.

    Source:
        Ruiz et al. 2022, arXiv:2208.12242, equation 2; diffusers `train_dreambooth.py`.
    """
    if prior_loss_weight is None:
        loss = losses.mean()
        return loss, loss.detach()[None]
    parts = losses.view(2, -1).mean(dim=1)
    return parts[0] + prior_loss_weight * parts[1], parts.detach()
