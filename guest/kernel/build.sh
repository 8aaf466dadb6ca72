#!/bin/bash
# Builds the guest kernel and its modules disk:  guest/kernel/build.sh OUTPUT_DIRECTORY
#
# Leaves in OUTPUT_DIRECTORY:
#   vmlinux        uncompressed ELF with a PVH entry note, for QEMU's -kernel
#   modules.erofs  a filesystem to mount at /lib/modules; its root holds the one directory named by `version`
#   config         the complete configuration the fragment led to
#   version        what uname -r will say
#
# A build takes minutes, so its result is kept outside the work tree under a name derived from everything that could
# change it. One process builds, others wait for it; a result appears under its final name complete or not at all.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly here
readonly source_package=linux-source-6.12
readonly source_archive=/usr/src/$source_package.tar.xz
readonly fragment=$here/container.config
readonly cache=${CONTAINER_BUILD_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/container-build}
readonly outputs=(vmlinux modules.erofs config version)

# The same inputs give the same bytes: no clock, user or host name of the build machine enters the kernel.
export KBUILD_BUILD_TIMESTAMP='Thu Jan  1 00:00:00 UTC 1970'
export KBUILD_BUILD_USER=container KBUILD_BUILD_HOST=container KBUILD_BUILD_VERSION=1
export LC_ALL=C TZ=UTC

die() { echo "guest kernel: $*" >&2; exit 1; }

check_tools() {
  local tool missing=()
  for tool in gcc ld make flex bison bc xz cpio depmod mkfs.erofs flock patch; do
    command -v "$tool" >/dev/null || missing+=("$tool")
  done
  [ ${#missing[@]} -eq 0 ] || die "missing tools: ${missing[*]}" \
    "(Debian: build-essential flex bison bc xz-utils cpio kmod erofs-utils util-linux patch)"
  [ -r "$source_archive" ] || die "missing $source_archive (Debian: $source_package)"
}

# The package's version stands for the archive's content; reading 150 MB at every call would be felt.
source_identity() {
  dpkg-query -W -f '${Version}' "$source_package" 2>/dev/null || sha256sum < "$source_archive"
}

cache_key() {
  {
    cat "$fragment" "$here/build.sh" "$here"/patches/*.patch
    source_identity
    gcc --version
    ld --version
    mkfs.erofs --help 2>&1 || true
  } | sha256sum | cut -c1-16
}

# Only what an x86 build reads: leaving out other architectures' device trees and the register lists of graphics cards
# halves what is written.
unpack_source() {
  tar -xf "$source_archive" -C "$1" --strip-components=1 \
    --exclude='*/Documentation/*.rst' --exclude='*/Documentation/*.yaml' --exclude='*/arch/*/boot/dts' \
    --exclude='*/drivers/gpu/*.h' --exclude='*/drivers/gpu/*.c' --exclude='*/tools/testing'
}

# Each patch says in its first lines what it is for.
apply_patches() {
  local file
  for file in "$here"/patches/*.patch; do
    patch --quiet --strip=1 --fuzz=0 < "$file" || die "$file does not fit $source_package"
  done
}

# Prints every line of the fragment that the configuration does not honour, because its dependencies are missing or
# something else selects what it forbids.
lost_options() {
  local line name
  while read -r line; do
    case $line in
      'CONFIG_'*'=n')
        name=${line%=n}
        ! grep -q "^$name=" .config || echo "$line" ;;
      'CONFIG_'*)
        grep -qxF "$line" .config || echo "$line" ;;
      '# CONFIG_'*' is not set')
        name=${line#\# }; name=${name% is not set}
        ! grep -q "^$name=" .config || echo "$line" ;;
    esac
  done < "$fragment"
}

configure() {
  make -s allnoconfig
  scripts/kconfig/merge_config.sh -m .config "$fragment" > merge.log 2>&1 || die "$(cat merge.log)"
  make -s olddefconfig
  local lost
  lost=$(lost_options)
  [ -z "$lost" ] || die "these options of $fragment did not survive:"$'\n'"$lost"
}

# Runs in the unpacked source and leaves the outputs in the given directory.
build() {
  local result=$1 modules=$PWD/modules.root
  # Not through ccache: what is kept is the whole result, and ccache makes a first build 40 % longer.
  local make=(make -s -j "${JOBS:-$(nproc)}" CC=gcc)

  apply_patches
  configure
  "${make[@]}" vmlinux modules
  "${make[@]}" INSTALL_MOD_PATH="$modules" INSTALL_MOD_STRIP=1 modules_install
  local version
  version=$(make -s kernelrelease)
  rm -f "$modules/lib/modules/$version/build" "$modules/lib/modules/$version/source"

  strip --strip-all -o "$result/vmlinux" vmlinux
  readelf --notes --wide "$result/vmlinux" | grep -q 'Xen.*0x00000012' || die "vmlinux has no PVH note"
  mkfs.erofs --quiet --all-root -T 0 -U 00000000-0000-0000-0000-000000000000 -x -1 \
    "$result/modules.erofs" "$modules/lib/modules"
  cp .config "$result/config"
  echo "$version" > "$result/version"
  chmod 0444 "$result"/*
}

build_into_cache() {
  local final=$1
  work=$1.building
  rm -rf "$work"
  mkdir -p "$work/source" "$work/result"
  unpack_source "$work/source"
  # Not in a condition: there bash would go on after a failing step.
  trap 'echo "guest kernel: the build failed; its tree is left in $work" >&2' ERR
  (cd "$work/source"; build "$work/result")
  trap - ERR
  sync -f "$work/result"
  mv -T "$work/result" "$final"
  rm -rf "$work"
}

# Each file is complete when its name appears, also for somebody who is just starting a VM from it.
deliver() {
  local from=$1 to=$2 name
  mkdir -p "$to"
  for name in "${outputs[@]}"; do
    cp --reflink=auto "$from/$name" "$to/.$name.$$"
    mv -fT "$to/.$name.$$" "$to/$name"
  done
}

main() {
  [ $# -eq 1 ] || die "usage: build.sh OUTPUT_DIRECTORY"
  check_tools
  mkdir -p "$cache"
  local final
  final=$cache/kernel-$(cache_key)
  if [ ! -d "$final" ]; then
    exec {lock}> "$final.lock"
    flock "$lock"
    if [ ! -d "$final" ]; then build_into_cache "$final"; fi
    exec {lock}>&-
  fi
  deliver "$final" "$1"
  echo "$final"
}

main "$@"
