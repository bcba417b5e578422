#!/usr/bin/env bash
# Homework B: three DreamBooth experiments, then three LoRAs on top of the best of them.
#
#   examples/homework_b.sh              on mini, without a GPU
#   BASE=sd15 examples/homework_b.sh    on Stable Diffusion 1.5
#
# Photos are in data/instance_images (`sdlab prepare`). What is finished is not done again. The LoRAs, which the
# homework calls exp1.1, exp2 and exp4 too, are called lora_exp1.1 … here, so that one report can show all six.
set -euo pipefail
MODEL_NAME="${BASE:-mini}"
INSTANCE_DIR="${INSTANCE_DIR:-data/instance_images}"
CLASS_DIR="${CLASS_DIR:-data/class_images/homework_b}"
SDLAB="${SDLAB:-sdlab}"

if [ "$MODEL_NAME" = mini ]; then
  RESOLUTION=128 CLASS_IMAGES=64 RATE=1e-4 LOWER_RATE=5e-5 LORA_RATE=5e-4 # what suits mini
else
  RESOLUTION=512 CLASS_IMAGES=500 RATE=2e-6 LOWER_RATE=1e-6 LORA_RATE=1e-6
fi

dreambooth() { # name, prior_loss_weight, learning_rate
  "$SDLAB" train dreambooth \
    --pretrained_model_name_or_path="$MODEL_NAME" \
    --instance_data_dir="$INSTANCE_DIR" \
    --class_data_dir="$CLASS_DIR" \
    --output_dir="experiments/$1" \
    --instance_prompt="a photo of sks woman face" \
    --class_prompt="a photo of woman face" \
    --with_prior_preservation --prior_loss_weight="$2" \
    --num_class_images=$CLASS_IMAGES \
    --resolution=$RESOLUTION \
    --train_batch_size=1 \
    --gradient_accumulation_steps=1 \
    --learning_rate="$3" \
    --lr_scheduler="constant" \
    --lr_warmup_steps=0 \
    --max_train_steps=800 \
    --checkpointing_steps=800 \
    --use_8bit_adam \
    --mixed_precision="no" \
    --train_text_encoder \
    --seed 31
}
dreambooth exp1.1 1.0 $RATE
dreambooth exp2 1.0 $LOWER_RATE
dreambooth exp3 1.2 $RATE

lora() { # name, rank
  "$SDLAB" train lora \
    --pretrained_model_name_or_path=experiments/exp1.1 \
    --instance_data_dir="$INSTANCE_DIR" \
    --output_dir="experiments/lora_$1" \
    --instance_prompt="a photo of sks woman face" \
    --resolution=$RESOLUTION \
    --train_batch_size=1 \
    --gradient_accumulation_steps=1 \
    --learning_rate=$LORA_RATE \
    --lr_scheduler="constant" \
    --lr_warmup_steps=0 \
    --max_train_steps=200 \
    --checkpointing_steps=20 \
    --use_8bit_adam \
    --mixed_precision="no" \
    --train_text_encoder \
    --rank="$2" \
    --validation_prompt="a photo of sks woman face in NYC, rain, dark, night, full moon, 4K" \
    --validation_epochs=50 \
    --seed=31
}
lora exp1.1 32
lora exp2 64
lora exp4 96

DREAMBOOTHS=(exp1.1 exp2 exp3) LORAS=(lora_exp1.1 lora_exp2 lora_exp4)
"$SDLAB" generate base "${DREAMBOOTHS[@]}" "${LORAS[@]}" --prompts homework_b --base "$MODEL_NAME"
"$SDLAB" control --image data/control_images/raised_arms.png --kind canny --kind depth --kind pose \
  --prompts homework_b --experiments exp1.1 lora_exp4
CONTROLLED=(results/exp1.1_*_raised_arms results/lora_exp4_*_raised_arms)
"$SDLAB" score base "${DREAMBOOTHS[@]}" "${LORAS[@]}" "${CONTROLLED[@]#results/}"
"$SDLAB" table base "${DREAMBOOTHS[@]}" --prompts homework_b --out results/dreambooth.png
"$SDLAB" table base "${LORAS[@]}" --prompts homework_b --out results/lora.png
"$SDLAB" report "${DREAMBOOTHS[@]}" "${LORAS[@]}" --prompts homework_b --best_dreambooth exp1.1 --best_lora lora_exp4
