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

title() { printf '\n\033[1m== %s\033[0m\n' "$*"; }
show() { printf '\033[36m$ %s\033[0m\n' "$*"; "$@"; }

# Tries until it succeeds; for what a container does in its own time.
eventually() {
  local attempt
  for attempt in $(seq 60); do
    if "$@" >/dev/null 2>&1; then return 0; fi
    sleep 0.5
  done
  echo "demo: gave up after $attempt attempts: $*" >&2
  return 1
}

free_port() {
  python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

no_process_left() {
  ! grep -lzqsxF "CONTAINER_APP_ROOT=$CONTAINER_APP_ROOT" \
    $(find /proc -maxdepth 2 -name environ -user "$(id -un)" ! -path "/proc/self/*" 2>/dev/null |
      grep -vE "^/proc/($$|$BASHPID)/") 2>/dev/null
}

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
show sed -i 's/sleep 5/sleep 7/' compose.yaml
show container plan
show container up -d

title "A second up does nothing"
show container up -d

title "Down: nothing is left"
show container down
show container ls -a
show container system stop
eventually no_process_left
sockets=$(find "$run_folder" -type s)
[ -z "$sockets" ] || { echo "demo: sockets left: $sockets" >&2; exit 1; }
[ -z "$(ls -A "$CONTAINER_APP_ROOT/containers" 2>/dev/null)" ] || { echo "demo: disks left" >&2; exit 1; }
echo "no process, socket, disk or address is left"
