#!/bin/bash
# Packs the guest agent into the archive the kernel unpacks before its first process:
#   guest/initramfs/build.sh AGENT OUTPUT_FILE
#
# AGENT is a static executable and becomes /init. The archive is not compressed, because the guest's processor is slower
# than the host's memory. Device nodes need root to make, and this runs without: the entries are written here, in the
# "newc" form the kernel reads, with fixed times and owners, so that the same agent gives the same bytes.
set -euo pipefail

die() { echo "initramfs: $*" >&2; exit 1; }

temporary=
inode=0
written=0

# Entries and contents begin at multiples of four.
pad() {
  local missing=$(( (4 - written % 4) % 4 ))
  head -c "$missing" /dev/zero
  written=$(( written + missing ))
}

# entry NAME MODE SIZE [MAJOR MINOR]: one header; the caller writes SIZE bytes of content after it.
entry() {
  local name=$1 mode=$2 size=$3 major=${4:-0} minor=${5:-0} links=1
  inode=$(( inode + 1 ))
  printf '070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%s\0' \
    "$inode" "$mode" 0 0 "$links" 0 "$size" 0 0 "$major" "$minor" "$(( ${#name} + 1 ))" 0 "$name"
  written=$(( written + 110 + ${#name} + 1 ))
  pad
}

directory() { entry "$1" $(( 8#040000 + 8#$2 )) 0; }
character_device() { entry "$1" $(( 8#020000 + 8#$2 )) 0 "$3" "$4"; }

executable() {
  local size
  size=$(stat -L -c %s "$2")
  entry "$1" $(( 8#100755 )) "$size"
  cat "$2"
  written=$(( written + size ))
  pad
}

archive() {
  local name
  for name in dev proc sys run mnt lib lib/modules sbin etc; do directory "$name" 755; done
  directory tmp 1777
  directory root 700
  # The kernel opens /dev/console for the first process before anybody could mount a devtmpfs.
  character_device dev/console 600 5 1
  character_device dev/null 666 1 3
  character_device dev/kmsg 600 1 11
  executable init "$1"
  entry 'TRAILER!!!' 0 0
}

main() {
  [ $# -eq 2 ] || die "usage: build.sh AGENT OUTPUT_FILE"
  [ -f "$1" ] || die "no such file: $1"
  if readelf --program-headers --wide "$1" 2>/dev/null | grep -q ' INTERP '; then
    die "$1 is linked dynamically; there is no loader in the guest"
  fi
  mkdir -p "$(dirname "$2")"
  temporary="$2.$$"
  trap 'rm -f "$temporary"' EXIT
  archive "$1" > "$temporary"
  chmod 0644 "$temporary"
  mv -fT "$temporary" "$2"
}

main "$@"
