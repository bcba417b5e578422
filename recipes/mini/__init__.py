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
    rare_word   `sks` becomes a word that the text encoder heeds
    reader      the classifier that judges pictures
    clip        a small CLIP, for scores
    maps        canny, depth and pose of the pictures, known because they are drawn
    control     a ControlNet for each of the three
    annotators  a depth and a pose estimator for pictures of the world
    export      the diffusers folder, the weights of reader, CLIP, ControlNets and annotators
    evaluate    PSNR, and how often the model draws what a caption says

How the embedded weights were made, on two shared cores in an evening, each model begun with the weights
of an earlier, finer drawn world (`--begin-with`), on 24,000 pictures, 12,000 of them with maps: `vae` 16
minutes (2,590 steps), 40 % of the first half's steps and 15 % of the others at a smaller scale, `text` 3
minutes (400 steps), `unet` 132 minutes (5,250 steps) of 64 pictures, then `cooldown` 13 minutes (to step
5,850), `decoder` 8 minutes (1,510 steps), `reader` 9 minutes (790 steps), `clip` 20 minutes (620 steps),
`control` 5 minutes (570 steps) for canny, 5 minutes (570 steps) for depth and 6 minutes (570 steps) for
pose, `annotators` 8 minutes (240 steps) for depth and 8 minutes
(270 steps) for pose, `rare_word` at the end. So a run of the recipe from the start gives similar weights,
not the same.
"""
