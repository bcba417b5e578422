"""The training recipe of the mini model, from drawn pictures to the embedded weights.

Stages, each resumable, each with its folder under `cache_dir/mini/`:

    tokenizer   byte-level BPE over the world's words
    pictures    the training world, drawn once
    vae         AutoencoderKL on crops
    latents     every picture encoded once
    decoder     the decoder learns on, the latents stay
    text        the text encoder reads captions
    unet        the UNet learns to denoise latents, given captions, at a constant rate
    cooldown    its rate falls to nothing; the best weights so far
    reader      the classifier that judges pictures
    clip        a small CLIP, for scores
    maps        canny, depth and pose of the pictures, known because they are drawn
    control     a ControlNet for each of the three
    annotators  a depth and a pose estimator for pictures of the world
    export      the diffusers folder, the weights of reader, CLIP, ControlNets and annotators
    evaluate    PSNR, and how often the model draws what a caption says

How the embedded weights were made, on two shared cores, in two days: `vae` 58 minutes (32 on both cores),
`text` 12, `unet` 70 on an earlier text encoder (9,500 steps of 32 pictures), then 84 with the present one
(7,790 steps of 64), `reader` 51 and 7 more on the present pictures, `clip` 42 on half of
the pictures (2,350 steps of 64, with a quarter to half of one core), no `decoder`. The `vae` learned from
pictures with harder edges and smaller heads in whole figures. So a run of the recipe from the start gives
similar weights, not the same. On about half a shared core: `control` 38 minutes for canny (1,620 steps
of 32, the first 450 at half the learning rate), 22 for depth (760), 22 for pose (1,040, the first 740 at
half the learning rate); `annotators` 29 for pose (1,860, the first 420 without the loss of distances), 5
for depth (210).
"""
