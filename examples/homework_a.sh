#!/usr/bin/env bash
# Homework A: DreamBooth, a LoRA sweep of the learning rate at rank 4, then of the rank at the best rate.
#
#   examples/homework_a.sh              on mini, without a GPU
#   BASE=sd15 examples/homework_a.sh    on Stable Diffusion 1.5
#
# Photos are in data/instance_images (`sdlab prepare`). What is finished is not done again.
set -euo pipefail
BASE="${BASE:-mini}"
SDLAB="${SDLAB:-sdlab}"

if [ "$BASE" = mini ]; then
  RATES=(2e_6=5e-5 2e_5=5e-4 2e_4=5e-3 2e_3=5e-2) # the homework's name = the rate that does the same on mini
else
  RATES=(2e_6=2e-6 2e_5=2e-5 2e_4=2e-4 2e_3=2e-3)
fi

"$SDLAB" train dreambooth dreambooth_v1 --pretrained_model_name_or_path="$BASE"

lora() { # rank, name of the rate, rate
  "$SDLAB" train lora "dreambooth_lora_k$1_lr_$2" --pretrained_model_name_or_path="$BASE" \
    --rank="$1" --learning_rate="$3"
}
for pair in "${RATES[@]}"; do lora 4 "${pair%=*}" "${pair#*=}"; done
BEST="${RATES[2]}"
lora 8 "${BEST%=*}" "${BEST#*=}"
lora 2 "${BEST%=*}" "${BEST#*=}"

LORAS=("${RATES[@]%=*}")
NAMES=(base dreambooth_v1 "${LORAS[@]/#/dreambooth_lora_k4_lr_}" "dreambooth_lora_k8_lr_${BEST%=*}" "dreambooth_lora_k2_lr_${BEST%=*}")
"$SDLAB" generate "${NAMES[@]}" --prompts homework_a --base "$BASE"
for image in silhouette raised_arms; do
  "$SDLAB" control --image "data/control_images/$image.png" --kind canny --prompts homework_a --base "$BASE" \
    --experiments base dreambooth_v1 "dreambooth_lora_k4_lr_${BEST%=*}" --out "results/canny_$image.png"
done
CONTROLLED=(results/dreambooth_v1_canny_* results/dreambooth_lora_*_canny_*)
"$SDLAB" score "${NAMES[@]}" "${CONTROLLED[@]#results/}"
"$SDLAB" table "${NAMES[@]}" --prompts homework_a --out results/homework_a.png
"$SDLAB" report "${NAMES[@]:1}" --prompts homework_a --best_dreambooth dreambooth_v1 \
  --best_lora "dreambooth_lora_k4_lr_${BEST%=*}"
