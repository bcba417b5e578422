#!/usr/bin/env bash
# Download a Stable Diffusion 1.5 checkpoint and convert it to the diffusers layout.
#
#   ./download_and_convert.sh https://civitai.com/api/download/models/<version> [sha256]
#
# The result is a base model: --pretrained_model_name_or_path cache_dir/models/civitai_model.
# An interrupted download goes on where it stopped. Sites that ask for a token get it from CIVITAI_TOKEN,
# HF_TOKEN, or for any other site DOWNLOAD_TOKEN; each goes to its own site alone and is never printed.
set -euo pipefail

URL=""    # the checkpoint's address, if you don't give it as the first argument
SHA256="" # the checksum that the site states, if you want it checked; or the second argument

URL="${1:-$URL}"
SHA256="${2:-$SHA256}"
MODELS="cache_dir/models"
OUT="${OUT:-$MODELS/civitai_model}"
CONVERT_OPTIONS="${CONVERT_OPTIONS:-}" # more for `sdlab convert`, such as --tokenizer FOLDER without a network
RETRY_DELAY="${RETRY_DELAY:-2}"        # seconds
ATTEMPTS=5

fail() {
  echo "download_and_convert: $*" >&2
  exit 1
}

sha256() { (sha256sum "$@" 2>/dev/null || shasum -a 256 "$@") | cut -d' ' -f1; }

token() {
  case "$URL" in
    https://civitai.com/* | https://*.civitai.com/*) printf %s "${CIVITAI_TOKEN:-}" ;;
    https://huggingface.co/*) printf %s "${HF_TOKEN:-}" ;;
    *) printf %s "${DOWNLOAD_TOKEN:-}" ;;
  esac
}

fetch() { # curl's exit status; the answer's HTTP code goes into $code
  local token status=0
  token="$(token)"
  # The token goes through standard input, so that no list of processes shows it. curl drops it where the site
  # redirects to another host, and goes on after the bytes that are there.
  code="$({ [ -z "$token" ] || printf 'header = "Authorization: Bearer %s"\n' "$token"; } |
    curl --config - --location --fail --connect-timeout 20 --progress-bar --continue-at - \
      --write-out '%{http_code}' --output "$part" "$URL")" || status=$?
  return "$status"
}

download() {
  local attempt status
  for attempt in $(seq "$ATTEMPTS"); do
    [ ! -s "$part" ] || echo "going on after $(wc -c <"$part" | tr -d ' ') bytes"
    status=0
    fetch || status=$?
    case "$status:$code" in
      0:*) return ;;
      22:416) return ;; # nothing comes behind what is there, so it is whole; the conversion checks it
      33:* | 36:*)
        echo "the server can't go on in the middle of the file, so the download begins again"
        rm -f "$part"
        ;;
      22:401 | 22:403) fail "the site refused ($code): it wants a token. Make one in your account there, then:" \
        "export CIVITAI_TOKEN=… (Civitai), HF_TOKEN=… (Hugging Face) or DOWNLOAD_TOKEN=… (any other site)" ;;
      22:4*) fail "the site has no such file ($code). Take the address of its download button." ;;
      6:*) fail "the site of $URL isn't found. Check the address and the network." ;;
      23:*) fail "$part can't be written. Is the disk full? Make room and run the same command again." ;;
    esac
    [ "$attempt" = "$ATTEMPTS" ] || sleep "$RETRY_DELAY"
  done
  fail "the connection broke off $ATTEMPTS times (curl's status $status, HTTP $code)." \
    "Run the same command again: it goes on from there."
}

[ -n "$URL" ] || fail "no address. Give that of a checkpoint: $0 https://civitai.com/api/download/models/<version>"
command -v curl >/dev/null ||
  fail "curl is not here. Install it, or download the file in a browser and run: sdlab convert FILE $OUT"
SDLAB="sdlab"
[ ! -x .venv/bin/sdlab ] || SDLAB=".venv/bin/sdlab"
if [ -e "$OUT" ]; then
  echo "$OUT is there already, kept. Delete it to make it anew."
  exit 0
fi

mkdir -p "$MODELS"
name="$(printf %s "$URL" | sha256 | cut -c1-12)"
part="$MODELS/$name.part"
file="$(find "$MODELS" -maxdepth 1 \( -name "$name.safetensors" -o -name "$name.ckpt" \) | head -n 1)"
if [ -z "$file" ]; then
  code=""
  download
  file="$MODELS/$name.safetensors"
  [ "$(head -c 9 "$part" | tail -c 1)" = "{" ] || file="$MODELS/$name.ckpt" # safetensors' header begins there
  mv "$part" "$file"
fi

sum="$(sha256 "$file")"
echo "SHA-256: $sum"
if [ -n "$SHA256" ] && [ "$(printf %s "$SHA256" | tr A-F a-f)" != "$sum" ]; then
  mv "$file" "$file.wrong"
  fail "the checksum should be $SHA256, so this is not the file that the site describes. It is kept as $file.wrong"
fi
# shellcheck disable=SC2086 # the options are several words
"$SDLAB" convert "$file" "$OUT" $CONVERT_OPTIONS ||
  fail "not converted (see above). The download is kept: put that right and run the same command again." \
    "If the file itself is wrong, delete it first: rm $file"
