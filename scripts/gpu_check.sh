#!/usr/bin/env bash
# Checks and times joust on a machine with NVIDIA GPUs, in one call. It was written on a machine without one and never ran on a GPU.
#
# usage: gpu_check.sh pack        here, after `make build-cuda`: packs the programs into .gpu/, which travels to the other machine
#        gpu_check.sh [TORCH]     there: runs .gpu/ against the torch 2.11.0 (CUDA 13.0) folder TORCH, by default that of its python3
#
# Results are JSON lines with command, hardware and date, in $OUT or bench/results/. The exit status is 1 if a check failed.
set -uo pipefail
cd "$(dirname "$0")/.."

if [ "${1:-}" = pack ]; then
    built=${CUDA_TARGET_DIR:-${CARGO_TARGET_DIR:-target}/cuda}/x86_64-unknown-linux-gnu/debug
    tests=$(find "$built/deps" -name 'gpu-*' -type f -executable -printf '%T@ %p\n' 2>/dev/null | sort -n | tail -1 | cut -d' ' -f2)
    [ -x "$built/joust" ] && [ -n "$tests" ] || { echo "gpu_check: $built holds no build; run make build-cuda" >&2; exit 1; }
    mkdir -p .gpu
    strip -o .gpu/joust "$built/joust" && strip -o .gpu/gpu-tests "$tests" && gzip -f .gpu/joust .gpu/gpu-tests && du -sh .gpu
    exit
fi

torch=${1:-$(python3 -c 'import os, torch; print(os.path.dirname(torch.__file__))')} || exit 1
export LD_LIBRARY_PATH="$torch/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
results=${OUT:-bench/results}/gpu-$(date -u +%Y%m%dT%H%M%SZ).jsonl
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$(dirname "$results")"
gpu=$(nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader | paste -sd'|') || exit 1
for program in joust gpu-tests; do
    gunzip -c ".gpu/$program.gz" >"$work/$program" && chmod +x "$work/$program" || exit 1
done
joust=$work/joust
failed=0

# record NAME COMMAND...: runs it in $work and writes one line; its output goes to $work/NAME.txt.
record() {
    local name=$1 begin status
    shift
    begin=$(date +%s.%N)
    (cd "$work" && "$@") >"$work/$name.txt" 2>&1
    status=$?
    [ $status -eq 0 ] || { failed=1; echo "FAIL $name"; tail -n 20 "$work/$name.txt"; }
    python3 - "$name" "$status" "$begin" "$(date +%s.%N)" "$gpu" "$work/$name.txt" "$@" >>"$results" <<'PY'
import datetime, json, sys
name, status, begin, end, gpu, text, *command = sys.argv[1:]
print(json.dumps({"check": name, "ok": status == "0", "seconds": round(float(end) - float(begin), 3), "command": " ".join(command),
                  "hardware": gpu, "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
                  "output": open(text, errors="replace").read()[-2000:]}))
PY
}

cat >"$work/inputs.py" <<'PY'
import json
names, things = ["Mia", "Tom", "Ben", "Sam", "Ana", "Leo", "Zoe", "Max"], ["kite", "dog", "ball", "boat", "drum", "goat", "cake", "map"]
rows = [f"{name} had a {thing}." for name in names for thing in things]
with open("corpus.jsonl", "w") as corpus, open("prompts.jsonl", "w") as prompts:
    for row in rows:
        prompts.write(json.dumps({"prompt": row}) + "\n")
        for end in (" It was a good day.", " It was a bad day."):
            corpus.write(json.dumps({"prompt": row, "completion": end}) + "\n")
open("sft.toml", "w").write("""
schema = 1
name = "base"
[model]
dtype = "float32"
new = { hidden_size = 256, intermediate_size = 512, num_hidden_layers = 4, num_attention_heads = 4, num_key_value_heads = 2, max_position_embeddings = 64 }
[tokenizer]
vocab_size = 300
[data]
train = "corpus.jsonl"
eval_fraction = 0.1
max_length = 48
[learner]
batch_size = 16
steps = 60
learning_rate = 1e-3
""")
open("run.toml", "w").write("""
schema = 1
name = "gpu"
preset = "oaif-dpo"
[policy]
model = "base"
dtype = "float32"
[data]
prompts = "prompts.jsonl"
epochs = 10
eval_fraction = 0.2
[sampling]
max_new_tokens = 12
[feedback]
ask = "score"
[[judge]]
name = "good"
kind = "rule"
rules = [{ pattern = "good", score = 1.0 }]
[learner]
prompts_per_step = 8
micro_batch = 8
learning_rate = 1e-4
steps = 8
""")
PY
record inputs python3 inputs.py
record doctor "$joust" --device cuda doctor
record gpu_tests "$work/gpu-tests" --ignored --test-threads 1
for device in cpu cuda; do
    record "sft_$device" "$joust" --device "$device" sft sft.toml --set "output.dir=base-$device"
    [ $device = cpu ] && ln -s base-cpu "$work/base"
    record "sample_$device" "$joust" --device "$device" sample base-cpu --prompts prompts.jsonl --temperature 0 --max-new-tokens 16
    record "run_$device" "$joust" --device "$device" run run.toml --set "output.dir=run-$device"
done
record greedy_answers_agree cmp sample_cpu.txt sample_cuda.txt
record lora "$joust" --device cuda run run.toml --set output.dir=run-lora \
    --set policy.lora.rank=8 --set policy.lora.alpha=16 --set 'policy.lora.targets=["all-linear"]'
record resume "$joust" --device cuda run run.toml --set output.dir=run-cuda --resume
gpus=$(nvidia-smi --list-gpus | wc -l)
[ "$gpus" -lt 2 ] || record "ranks_$gpus" "$joust" --device cuda run run.toml --set output.dir=run-ranks --set "learner.ranks=$gpus"
echo "results in $results"
exit $failed
