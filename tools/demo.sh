#!/usr/bin/env bash
# The tour of `./dev demo`: the hello stack from its first plan to nothing left. Everything is done
# by the commands a user would type; each is shown before it runs.
#   tools/demo.sh BUILD_FOLDER
set -euo pipefail
source_folder=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
build=$(cd "$1" && pwd)
PATH="$build/bin:$PATH"
work=$(mktemp -d "${TMPDIR:-/tmp}/container-demo.XXXXXX")
# A system of its own: what the user has running already is not touched.
export CONTAINER_APP_ROOT="$work/app"
run_folder="$work/run"
mkdir -m 700 "$run_folder"
export XDG_RUNTIME_DIR="$run_folder"

finish() {
  local code=$?
  if [ $code != 0 ]; then
    echo "demo: failed; end of the daemon's log:" >&2
    tail -n 20 "$CONTAINER_APP_ROOT/log/apiserver.log" >&2 || true
  fi
  container system stop >/dev/null 2>&1 || true
  rm -rf "$work"
  exit $code
}
trap finish EXIT

die() { echo "demo: $*" >&2; exit 1; }
title() { printf '\n\033[1m== %s\033[0m\n' "$*"; }
show() { printf '\033[36m$ %s\033[0m\n' "$*"; "$@"; }

# Tries until it succeeds; for what a container does in its own time.
eventually() {
  local attempt
  for attempt in $(seq 60); do
    if "$@" >/dev/null 2>&1; then return 0; fi
    sleep 0.5
  done
  die "gave up after $attempt attempts: $*"
}

free_port() {
  python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# What each container's machine calls its life: what an `up` touches is started anew.
started() {
  local id
  for id in $(container ls -q | sort); do
    echo "$id $(container exec "$id" cat /proc/sys/kernel/random/boot_id)"
  done
}

# The host's own links, addresses and routes, which are nobody's business but the host's.
host_network() {
  ip -o link show | cut -d' ' -f2,3
  ip -o address show | awk '{print $2, $3, $4}'
  ip route show
}

no_process_left() {
  ! grep -lzqsxF "CONTAINER_APP_ROOT=$CONTAINER_APP_ROOT" \
    $(find /proc -maxdepth 2 -name environ -user "$(id -un)" ! -path "/proc/self/*" 2>/dev/null |
      grep -vE "^/proc/($$|$BASHPID)/") 2>/dev/null
}

host_before=$(host_network)
cp -r "$source_folder/examples/stacks/hello" "$work/hello"
port=$(free_port)
sed -i "s/8080:80/$port:80/" "$work/hello/compose.yaml"
cd "$work/hello"

title "An image, made here from the distribution's busybox; no registry"
show "$source_folder/tools/make_busybox_image.py" "$work/hello.tar"
show container system start
show container image load -i "$work/hello.tar"
show container image ls

title "What the file declares, and the plan to get there"
show cat compose.yaml
show container plan

title "Up: each service in a virtual machine of its own"
show container up -d
show container ls

title "One service fetches a page from the other by its name; the host by the published port"
show container exec hello-visitor-1 wget -q -O - http://web/
eventually curl -fs -o /dev/null "http://127.0.0.1:$port/"
show curl -fs "http://127.0.0.1:$port/"
eventually sh -c 'container logs hello-visitor-1 | grep -q Hello'
show container logs -n 2 hello-visitor-1
show container exec hello-web-1 uname -a

title "A change to the file: the plan says which field, and why"
before=$(started)
show sed -i 's/sleep 5/sleep 7/' compose.yaml
show container plan | tee "$work/plan"
grep -q 'command' "$work/plan" || die "the plan does not name the field that changed"
! grep -q 'service.web' "$work/plan" || die "the plan touches a service that did not change"
show container up -d
changed=$(comm -13 <(echo "$before") <(started) | cut -d' ' -f1)
[ "$changed" = hello-visitor-1 ] || die "started anew: $changed"

title "A second up does nothing"
before=$(started)
show container up -d
[ "$(started)" = "$before" ] || die "the second up started something"

title "Down: nothing is left"
show container down
show container ls -a
show container system stop
eventually no_process_left
sockets=$(find "$run_folder" -type s)
[ -z "$sockets" ] || die "sockets left: $sockets"
for folder in containers networks/networks; do
  [ -z "$(ls -A "$CONTAINER_APP_ROOT/$folder" 2>/dev/null)" ] || die "left in $folder: $(ls "$CONTAINER_APP_ROOT/$folder")"
done
! curl -fs -o /dev/null "http://127.0.0.1:$port/" || die "port $port still answers"
[ "$(host_network)" = "$host_before" ] || die "the host's network is not as it was"
echo "no process, socket, disk or address is left"
