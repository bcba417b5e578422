"""How OpenMP's threads should wait: a UNet forward's time alone and beside a second process that computes.

    python benchmarks/threads.py [--repeats 5] [--seconds 8]    # 2 minutes a repeat

Each setting runs in a process of its own, because torch reads it when it is imported. Settings are measured
in turn, `repeats` times, so that what else the machine does hits all of them; the table shows medians.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys

# What a process does: mini's UNet on 8 images until the time is over; prints the median seconds of a forward.
WORK = """
import statistics, sys, time
import torch  # before sdlab, which would set what is left out
from sdlab import mini
from diffusers import UNet2DConditionModel

unet = UNet2DConditionModel.from_pretrained(mini.path(), subfolder="unet").eval()
shape = unet.config
size, width = shape.sample_size, shape.cross_attention_dim
latents, prompt = torch.randn(8, shape.in_channels, size, size), torch.randn(8, 77, width)
end, times = time.perf_counter() + float(sys.argv[1]), []
with torch.inference_mode():
    while time.perf_counter() < end or len(times) < 3:
        start = time.perf_counter()
        unet(latents, 500, prompt)
        times.append(time.perf_counter() - start)
print(statistics.median(times[1:]))
"""
BAR = 2.5  # of the time alone
SETTINGS: dict[str, dict[str, str]] = {
    "torch's own (spinning)": {"OMP_WAIT_POLICY": "", "GOMP_SPINCOUNT": ""},
    "passive, 0 spins": {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"},
    "passive, 800 spins (sdlab's)": {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "800"},
    "passive, 10,000 spins": {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "10000"},
    "passive, 100,000 spins": {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "100000"},
}


def start(setting: dict[str, str], seconds: float) -> subprocess.Popen[str]:
    """A process that computes under a setting; an empty value leaves the variable out."""
    variables = {name: value for name, value in os.environ.items() if name not in setting}
    variables |= {name: value for name, value in setting.items() if value}
    command = [sys.executable, "-c", WORK, str(seconds)]
    return subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, text=True)


def seconds_of(process: subprocess.Popen[str]) -> float:
    """Waits for a process and reads what it measured."""
    said, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"the measuring process ended with {process.returncode}")
    return float(said)


def main() -> None:
    """Measures every setting and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8)
    chosen = parser.parse_args()
    alone: dict[str, list[float]] = {name: [] for name in SETTINGS}
    beside: dict[str, list[float]] = {name: [] for name in SETTINGS}
    for _ in range(chosen.repeats):
        for name, setting in SETTINGS.items():
            alone[name].append(seconds_of(start(setting, chosen.seconds)))
            other = start(setting, 2 * chosen.seconds)  # outlasts the one that is measured
            beside[name].append(seconds_of(start(setting, chosen.seconds)))
            other.terminate()
            other.wait()
    fastest = min(statistics.median(times) for times in alone.values())
    print(
        f"| threads wait | alone, s | of the fastest | beside another, s | of alone | bar |\n{'| --- ' * 6}|"
    )
    for name in SETTINGS:
        one, two = statistics.median(alone[name]), statistics.median(beside[name])
        held = "held" if two / one <= BAR else "missed"
        print(f"| {name} | {one:.3f} | {one / fastest:.2f} | {two:.3f} | {two / one:.1f} | {held} |")
    print(f"\nBar: a forward beside another process takes at most {BAR} × its time alone.")


if __name__ == "__main__":
    main()
