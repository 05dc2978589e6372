#!/bin/sh
# Builds the guest kernel: build-kernel.sh SOURCE.tar.xz FRAGMENT BZIMAGE
# The image appears under its name whole or not at all. The caller holds the lock.
set -eu
source=$1 fragment=$2 image=$3

# Whoever held the lock before may have built it.
[ -e "$image" ] && exit 0

# A build that was killed leaves its tree behind; under the lock there is no other.
tree=$(dirname "$image")/tree
rm -rf "$tree"
trap 'rm -rf "$tree"' EXIT
trap 'exit 130' INT TERM
mkdir -p "$tree"

# Kconfig reads one file under Documentation; the rest of it and other machines' code stay packed.
tar -xf "$source" -C "$tree" --strip-components=1 \
  --exclude='*/Documentation/?*/*' --exclude='*/tools/testing/*' --exclude='*/arch/*/boot/dts/*'
cd "$tree"
make -s KCONFIG_ALLCONFIG="$fragment" allnoconfig

# An option whose dependencies are not met is dropped without a word.
if grep -x 'CONFIG_.*' "$fragment" | grep -vxFf .config; then
  echo 'Cannot build the kernel: these lines of the fragment did not reach its .config' >&2
  exit 1
fi

# The source is a distribution's, so its warnings are not ours to read.
if ! make -j"$(nproc)" bzImage >build.log 2>&1; then
  tail -n 40 build.log >&2
  exit 1
fi
cp arch/x86/boot/bzImage "$image.new"
mv "$image.new" "$image"
