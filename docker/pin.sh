#!/bin/sh
# Adds the digests of today to the base images of docker/Dockerfile and docker/compose.yaml. Needs docker and the network.
#
#   sh docker/pin.sh
set -eu
cd "$(dirname "$0")"
for image in $(sed -n 's/^FROM \([^@ ]*\).*/\1/p' Dockerfile) $(sed -n 's/^ *image: \(postgres:[^@ ]*\).*/\1/p' compose.yaml); do
    digest=$(docker buildx imagetools inspect --format '{{.Manifest.Digest}}' "$image")
    sed -i "s|$image\(@sha256:[0-9a-f]*\)\{0,1\}|$image@$digest|" Dockerfile compose.yaml
    echo "$image@$digest"
done
