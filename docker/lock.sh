#!/bin/sh
# Writes the locks of the image: docker/requirements.txt and requirements-cuda.txt, each package with its hashes.
# With the argument cpu also docker/requirements-cpu.txt, from PyTorch's index. Needs uv (pip install uv).
#
#   sh docker/lock.sh [cpu]
set -eu
cd "$(dirname "$0")/.."

compile() {
    uv pip compile --quiet --no-header --no-annotate --generate-hashes \
        --python-version 3.11 --python-platform x86_64-manylinux_2_28 "$@"
}

echo hatchling > docker/build.in
compile pyproject.toml docker/build.in --extra train --extra postgresql --extra server -c constraints.txt \
    --default-index https://pypi.org/simple > docker/all.txt
head='# Written by docker/lock.sh. Versions are those of constraints.txt.'
for part in requirements requirements-cuda; do echo "$head" > "docker/$part.txt"; done
awk '/^[^ ]/ { file = /^(torch==|triton==|nvidia-|cuda-)/ ? "docker/requirements-cuda.txt" : "docker/requirements.txt" }
    { print >> file }' docker/all.txt
rm docker/build.in docker/all.txt

if [ "${1:-}" = cpu ]; then
    { echo "$head"; grep '^torch==' constraints.txt | compile --no-deps \
        --default-index https://download.pytorch.org/whl/cpu -; } > docker/requirements-cpu.txt
fi
