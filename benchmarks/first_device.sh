#!/usr/bin/env bash
# The first minutes of the mixture-of-experts layer on a GPU: what works, and how fast it is, in at most nine minutes.
#
#   benchmarks/first_device.sh [FOLDER]
#
# Needs a checkout and a Python (PYTHON, default python3) with torch 2.11 or newer, Triton, cuda-bindings, NVRTC, numpy and
# pytest. Nothing of the project has to be installed. In this order, each step within its own time limit:
#
#   packages    versions of what is needed, and the device
#   compile     the CUDA kernels, with NVRTC; needs no device
#   smoke       one forward and backward pass of the cuda backend against the reference
#   tests       the GPU tests, one process per backend, so that a kernel that hangs or crashes takes no other with it
#   benchmark   moe_layer.py: training shapes with uniform routing, then Zipf, then decoding
#
# FOLDER (default: benchmarks/results/first_device) gets a log per step, the benchmark's raw results, and summary.txt with a
# line per step as soon as it ends. RIVALS may name folders (with `:` between) that hold ScatterMoE or SonicMoE, which the
# benchmark then measures as well; docs/moe-layer.md says what to put there. Exits with 0 if everything was measured, with
# 3 if there is no device, and otherwise with 1; the last line says what was measured.
set -u
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
out=${1:-benchmarks/results/first_device}
mkdir -p "$out"
out=$(cd "$out" && pwd)
rivals=
IFS=: read -ra folders <<< "${RIVALS:-}"
for folder in ${folders[@]+"${folders[@]}"}; do
  # Python reads .pth files of installed packages only, and nvidia-cutlass-dsl says by one where its modules are.
  rivals+=":$folder:$folder/nvidia_cutlass_dsl/python_packages"
done
export PYTHONPATH="trainer:benchmarks$rivals${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
: > "$out/summary.txt"
measured=() missing=()

say() { echo "$*" | tee -a "$out/summary.txt"; }

# step NAME SECONDS COMMAND...: run a command within its time, keep what it says, and note how it ended.
step() {
  local name=$1 limit=$2 began=$SECONDS status
  shift 2
  timeout --signal=TERM --kill-after=5 "$limit" "$@" > "$out/$name.log" 2>&1
  status=$?
  local took="$((SECONDS - began)) s"
  case $status:${packages:-0} in
    0:*) say "$name: done in $took"; measured+=("$name") ;;
    3:* | 1:3) say "$name: not possible: $(tail -n 1 "$out/$name.log")"; missing+=("$name") ;;
    124:* | 137:*) say "$name: stopped after $limit s; last line: $(tail -n 1 "$out/$name.log")"; missing+=("$name") ;;
    *) say "$name: failed with $status after $took; last line: $(tail -n 1 "$out/$name.log")"; missing+=("$name") ;;
  esac
  return $status
}

step packages 60 "$python" benchmarks/moe_bench/first_device.py packages
packages=$?
if [ $packages -ne 0 ] && [ $packages -ne 3 ]; then
  say "nothing was measured: $(tail -n 1 "$out/packages.log")"
  exit 1
fi
step compile 90 "$python" benchmarks/moe_bench/first_device.py compile
step smoke 60 "$python" benchmarks/moe_bench/first_device.py smoke

timeouts=()
"$python" -c "import pytest_timeout" 2> /dev/null && timeouts=(--timeout=40 --timeout-method=thread)
for backend in cuda triton torch; do
  files=(tests/trainer/moe/test_on_gpu.py)
  [ $backend = triton ] && [ $packages -eq 0 ] && files+=(tests/trainer/moe/triton --ignore=tests/trainer/moe/triton/test_compiles.py)
  step "tests-$backend" 80 "$python" benchmarks/moe_bench/first_device.py tests $backend "${files[@]}" \
    --confcutdir=tests/trainer -p no:cacheprovider -q -x --no-header ${timeouts[@]+"${timeouts[@]}"}
done

bench() { step "benchmark-$1" "$2" "$python" benchmarks/moe_layer.py --device cuda --silence 45 --rounds 15 \
  --minutes "$3" --only "$4" --output "$out/moe_layer_$1.json"; }
bench uniform 120 1.8 "train uniform"
bench zipf 50 0.7 "train qwen3-30b-a3b zipf"
bench decode 50 0.7 "decode"

if [ ${#missing[@]} -eq 0 ]; then
  say "everything was measured: ${measured[*]}"
elif [ $packages -eq 3 ]; then
  say "no device: ${measured[*]:-nothing} ran; ${missing[*]} could not"
  exit 3
else
  say "measured: ${measured[*]:-nothing}; not: ${missing[*]}"
  exit 1
fi
