#!/usr/bin/env bash
# Everything that is measured on a GPU, in one command, on a machine with torch and a CUDA device and nothing to install
# from:
#
#     bash benchmarks/gpu.sh OUT      writes OUT/policy-gpu.json, .png, latency traces, policy-gpu-profile.json,
#                                     policy-gpu-picard.json, video-gpu-speed.json, video-gpu-peer.json and the tests'
#                                     output
#
# The checkout is put on the path as `ontick`. diffusers, which the peers need, is taken from the folder wheels/ of the
# checkout where python3 has none; fill that where there is a network, with what diffusers imports and python3 there
# lacks: pip download --no-deps -d wheels diffusers importlib-metadata.
# STEPS picks some of "tests profile bench picard video", where a command may not take long. SUITE, DEVICE, EXTRA,
# PICARD, VIDEO, PEER and TESTS are for trying it on a CPU.
set -uo pipefail
out=$(mkdir -p "$1" && cd "$1" && pwd)
root=$(cd "$(dirname "$0")/.." && pwd)
path=$(mktemp -d)
trap 'rm -rf "$path"' EXIT
ln -s "$root" "$path/ontick"
if ! python3 -c "import diffusers" 2>/dev/null && [ -d "$root/wheels" ]; then
    python3 -m pip install --quiet --no-index --no-deps --target "$path" "$root"/wheels/*.whl
fi
export PYTHONPATH="$path${PYTHONPATH:+:$PYTHONPATH}"
suite=${SUITE:-policy-gpu} device=${DEVICE:-cuda} failed=0
cd "$path" # so that the checkout's own folders are not taken for packages
for step in ${STEPS:-tests profile bench picard video}; do
    case $step in
    tests)
        python3 -m pytest -q -p no:cacheprovider --import-mode=importlib "$root/tests/accel" \
            -k "${TESTS:-cuda}" | tee "$out/$suite-tests.txt" || failed=1
        ;;
    profile)
        python3 "$root/benchmarks/profile_chunk.py" --device "$device" --out "$out/$suite-profile.json" || failed=1
        ;;
    bench)
        # shellcheck disable=SC2086
        python3 -m ontick bench "$suite" ${EXTRA:-} --json "$out/$suite.json" || failed=1
        ;;
    picard)
        # shellcheck disable=SC2086
        python3 "$root/benchmarks/picard.py" --device "$device" ${PICARD:-} --out "$out/$suite-picard.json" || failed=1
        ;;
    video)
        # shellcheck disable=SC2086
        python3 "$root/benchmarks/video_speed.py" --device "$device" --preset video-large --precision bf16 \
            ${VIDEO:---frames 2000} --out "$out/video-gpu-speed.json" || failed=1
        # shellcheck disable=SC2086
        python3 "$root/benchmarks/video_peer.py" --device "$device" ${PEER:-} --out "$out/video-gpu-peer.json" || failed=1
        ;;
    esac
done
exit $failed
