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
"""
