#!/usr/bin/env bash
# A folder with a 64-bit ARM Python and onnxruntime, for the runner "qemu": Debian's packages and the wheels of the
# package index, unpacked and not installed, so that nothing of it runs here. Needs debootstrap, dpkg and pip.
#
#     benchmarks/bench/arm64_root.sh FOLDER
set -euo pipefail
folder=$(realpath -m "$1")
python=(python3.11-minimal libpython3.11-minimal libpython3.11-stdlib python3.11 libstdc++6 libgcc-s1 libexpat1 zlib1g libffi8 libssl3 libbz2-1.0 liblzma5 libsqlite3-0 libuuid1)
mkdir -p "$folder"
debootstrap --foreign --arch arm64 --variant=minbase --include="$(IFS=,; echo "${python[*]}")" bookworm "$folder"
for package in "$folder"/var/cache/apt/archives/*.deb; do dpkg -x "$package" "$folder"; done
# Emulated, onnxruntime's look at the CPU ends in a crash unless this file tells of one: a Cortex-A76.
mkdir -p "$folder/proc"
for core in 0 1; do
  printf 'processor\t: %s\nBogoMIPS\t: 108.00\nFeatures\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x4\nCPU part\t: 0xd0b\nCPU revision\t: 1\n\n' "$core"
done > "$folder/proc/cpuinfo"
wheels=$(mktemp -d)
python3 -m pip download --quiet --dest "$wheels" --no-deps --only-binary :all: --python-version 3.11 \
  --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 --platform manylinux2014_aarch64 --platform any \
  numpy onnxruntime flatbuffers protobuf packaging
for wheel in "$wheels"/*.whl; do python3 -m zipfile -e "$wheel" "$folder/usr/lib/python3/dist-packages"; done
rm -r "$wheels"
