#!/usr/bin/env bash
# Download a Stable Diffusion 1.5 checkpoint and convert it to the diffusers layout.
#
#   ./download_and_convert.sh https://civitai.com/api/download/models/<version> [sha256]
#
# An interrupted download goes on where it stopped. A token, if the site asks for one, is taken from
# CIVITAI_TOKEN or HF_TOKEN and never printed. The result is a base model: --pretrained_model_name_or_path
# cache_dir/models/civitai_model.
set -euo pipefail

URL="${1:-}"        # or write the address here: URL="https://…"
SHA256="${2:-}"     # the site's checksum, if you want it checked
MODELS="cache_dir/models"
OUT="${OUT:-$MODELS/civitai_model}"
CONVERT_OPTIONS="${CONVERT_OPTIONS:-}" # more for `sdlab convert`, such as --tokenizer FOLDER on a machine without the hub

fail() { echo "download_and_convert: $*" >&2; exit 1; }

[ -n "$URL" ] || fail "no address. Give that of a checkpoint: $0 https://civitai.com/api/download/models/<version>"
command -v curl >/dev/null || fail "curl is not here. Install it, or download the file in a browser and run: sdlab convert FILE $OUT"
SDLAB="sdlab"; [ -x .venv/bin/sdlab ] && SDLAB=".venv/bin/sdlab"
[ ! -e "$OUT" ] || { echo "$OUT is there already, kept. Delete it to make it anew."; exit 0; }

mkdir -p "$MODELS"
name="$(printf '%s' "$URL" | (sha256sum 2>/dev/null || shasum -a 256) | cut -c1-12)"
part="$MODELS/$name.part" file="$MODELS/$name.safetensors"
case "$URL" in *.ckpt | *.ckpt\?*) file="$MODELS/$name.ckpt" ;; esac

download() { # the token goes through curl's standard input, so that no list of processes shows it
  local token="${CIVITAI_TOKEN:-${HF_TOKEN:-}}"
  { [ -z "$token" ] || printf 'header = "Authorization: Bearer %s"\n' "$token"; } |
    curl --config - --location --fail --retry 5 --retry-all-errors --retry-delay "${RETRY_DELAY:-2}" \
      --connect-timeout 20 --progress-bar --continue-at - --output "$part" "$URL"
}

if [ ! -e "$file" ]; then
  [ ! -e "$part" ] || echo "going on after $(wc -c <"$part") bytes"
  status=0; download || status=$?
  if [ "$status" = 33 ] || [ "$status" = 36 ]; then # the server can't go on in the middle of a file
    echo "the server can't resume, so the download begins again"
    rm -f "$part"; status=0; download || status=$?
  fi
  case "$status" in
    0) ;;
    22) fail "the server refused (see above). If it says 401 or 403, the model needs a token: make one in your account there, then: export CIVITAI_TOKEN=…" ;;
    18 | 28 | 56) fail "the connection broke off. Run the same command again: it goes on from there." ;;
    *) fail "the download failed (curl's error $status). What is there is kept; run the same command again." ;;
  esac
  mv "$part" "$file"
fi

sum="$( (sha256sum "$file" 2>/dev/null || shasum -a 256 "$file") | cut -d' ' -f1)"
echo "SHA-256: $sum"
if [ -n "$SHA256" ] && [ "$(printf '%s' "$SHA256" | tr 'A-F' 'a-f')" != "$sum" ]; then
  mv "$file" "$file.wrong"
  fail "the checksum should be $SHA256. The file is not the one that the site describes; it is kept as $file.wrong"
fi
# shellcheck disable=SC2086 # several words
"$SDLAB" convert "$file" "$OUT" $CONVERT_OPTIONS || {
  mv "$file" "$file.wrong"
  fail "$file could not be converted (see above); it is kept as $file.wrong, so that the next run downloads anew"
}
