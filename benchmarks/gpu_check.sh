#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Everything that only a GPU can show, in under 8 minutes: bash benchmarks/gpu_check.sh [FOLDER]
#
# Builds for the GPU of this machine without the network, from what is installed: nvcc, and for Python nanobind,
# scikit-build-core, cmake, ninja, numpy, cupy, pytest; torch, hypothesis, scipy, GoogleTest and compute-sanitizer are
# used where they are found. Reads nothing from outside the repository, and writes to FOLDER (default: build/gpu_check):
# logs, and device.jsonl, which a developer commits as benchmarks/baselines/<its slug>.jsonl. Ends in a table; the exit
# status is 0 if no line of it says FAILED.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec < /dev/null

out=$(realpath -m "${1:-build/gpu_check}")
site=$out/site
python=${PYTHON:-python3}
mkdir -p "$out"
rm -f "$out"/*.log "$out"/table.txt
export CUDAARCHS=native DEQCORE_CUDA=ON DEQCORE_REQUIRE_GPU=1 PIP_DISABLE_PIP_VERSION_CHECK=1
export CMAKE_BUILD_PARALLEL_LEVEL=${CMAKE_BUILD_PARALLEL_LEVEL:-$(nproc)} # before OMP_NUM_THREADS, which nproc obeys
export OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1

has() { "$python" -c "import importlib.util as u, sys; sys.exit(u.find_spec('$1') is None)"; }
line() { printf '%-34s %-8s %5ss  %s\n' "$1" "$2" "$3" "$4" | tee -a "$out/table.txt"; }
# check NAME LOG COMMAND...: runs it, keeps what it prints, and adds a line to the table
check() {
  local name=$1 log=$out/$2.log start=$SECONDS said=ok
  shift 2
  "$@" > "$log" 2>&1 || said=FAILED
  line "$name" "$said" $((SECONDS - start)) "$(grep -av '^[[:space:]]*$' "$log" | tail -n 1 | cut -c1-110)"
  [ "$said" = ok ] || tail -n 25 "$log"
}
skip() { line "$1" skipped 0 "$2"; }

if ! nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>&1 | tee "$out/gpu.log"; then
  echo 'gpu_check: no GPU on this machine'
  exit 1
fi

check 'build for this GPU' build \
  "$python" -m pip install -q --no-build-isolation --no-deps --no-index --upgrade --target "$site" \
  -C build-dir="$out/wheel" .
export PYTHONPATH=$site:$PWD/tests${PYTHONPATH:+:$PYTHONPATH}
check 'what was built' info "$python" -m deqcore info

check 'device door' device "$python" -m pytest -q -W default -p no:cacheprovider tests/device \
  --deselect tests/device/test_emulated.py
if has hypothesis && has scipy; then
  check 'Python tests' python "$python" -m pytest -q -W default -p no:cacheprovider tests/python \
    --ignore tests/python/test_demo.py --ignore tests/python/test_benchmarks.py
else
  skip 'Python tests' 'hypothesis or scipy is missing'
fi

# The C++ tests hand host memory to kernels, which a GPU must be able to read.
reads_host_memory() {
  "$python" -c '
import cupy, sys
sys.exit(0 if cupy.cuda.Device().attributes["PageableMemoryAccess"] else 1)'
}
if { [ -n "${GTEST_ROOT:-}" ] || [ -e /usr/include/gtest/gtest.h ]; } && reads_host_memory; then
  check 'C++ tests: build' cpp_build bash -c \
    "cmake --preset cuda-release -G Ninja -B '$out/cpp' && cmake --build '$out/cpp'"
  check 'C++ tests: kernels and solvers' cpp ctest --test-dir "$out/cpp" --output-on-failure -j 8
else
  skip 'C++ tests' 'no GoogleTest (GTEST_ROOT names a folder with one), or this GPU cannot read the memory of the host'
fi

sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda*/bin/compute-sanitizer 2> /dev/null | head -n 1)
if [ -n "$sanitizer" ]; then
  for tool in memcheck racecheck synccheck; do
    check "compute-sanitizer $tool" "$tool" timeout 120 "$sanitizer" --tool "$tool" --error-exitcode 9 \
      "$python" tests/device/every_kernel.py
  done
else
  skip compute-sanitizer 'not found'
fi

check 'benchmarks' benchmarks "$python" benchmarks/run.py device --out "$out/device.jsonl"
cat "$out/benchmarks.log"

printf '\n%s\n' "$(cat "$out/gpu.log")"
cat "$out/table.txt"
! grep -q ' FAILED ' "$out/table.txt"
