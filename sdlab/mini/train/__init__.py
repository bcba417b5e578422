"""The training recipe of the mini model, from drawn pictures to the embedded weights.

Stages, each resumable, each with its folder under `cache_dir/mini/`:

    tokenizer   byte-level BPE over the world's words
    pictures    the training world, drawn once
    vae         AutoencoderKL on crops
    latents     every picture encoded once
    decoder     the decoder learns on, the latents stay
    text        the text encoder reads captions
    unet        UNet and text encoder learn to denoise latents
    reader      the classifier that judges pictures
    export      the diffusers folder and the reader's weights
    evaluate    PSNR, and how often the model draws what a caption says

How the embedded weights were made, on two shared cores: `vae` 58 minutes (32 on both), `text` 6, `unet`
70 (9,500 steps; both cores for the last 36), `reader` 51 at low priority (3,590 steps), no `decoder`.
The first 4,120 UNet steps were on the latents of the autoencoder's first 32 minutes, and all pictures
were drawn before the world's edges were smoothed: a run of the recipe from the start gives similar
weights, not the same.
"""
