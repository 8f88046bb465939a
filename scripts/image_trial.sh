#!/usr/bin/env bash
# Build the image from the last commit and test it, without a Docker daemon.
#
# As root, on Debian or Ubuntu: bash scripts/image_trial.sh
# CONTRIBUTING.md describes the environment variables BASE, ROOTFS, TORCH_INDEX, PIP_CONF and MOUNTS.
set -euo pipefail
checkout=$(git -C "$(dirname "$0")" rev-parse --show-toplevel)
work=$(mktemp -d "${TMPDIR:-/tmp}/image_trial.XXXXXX")
image=localhost/linserve-trial
passed=0 failed=0

export CONTAINERS_STORAGE_CONF="$work/storage.conf"
podman() { # podman without its warnings that health checks need systemd
    command podman --cgroup-manager cgroupfs --runtime runc "$@" 2> >(grep -v 'systemd connection' >&2)
}
clean() {
    podman rm -af -t 0 >/dev/null 2>&1 || true
    command buildah rm -a >/dev/null 2>&1 || true
    awk -v w="$work/" 'index($2, w) == 1 {print $2}' /proc/mounts | sort -r | xargs -r -n1 umount -l || true
    rm -rf --one-file-system "$work"
}
trap clean EXIT

check() { # check NAME COMMAND...: counts whether the command succeeds
    local name=$1 begin=$SECONDS
    shift
    if "$@" >"$work/out" 2>&1; then
        passed=$((passed + 1)) && echo "ok    $name ($((SECONDS - begin)) s)"
    else
        failed=$((failed + 1)) && echo "FAIL  $name ($((SECONDS - begin)) s)" && tail -n 15 "$work/out" | sed 's/^/      /'
    fi
}

# --- tools
[ "$(id -u)" = 0 ] || { echo "Run this as root." >&2; exit 2; }
missing=$(for tool in buildah curl debootstrap jq podman runc; do type -P "$tool" >/dev/null || echo "$tool"; done)  # not the function
if [ -n "$missing" ]; then
    apt-get update -qq
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing catatonit >/dev/null
fi
printf '[storage]\ndriver = "overlay"\ngraphroot = "%s"\nrunroot = "%s"\n' "$work/store" "$work/run" >"$work/storage.conf"

# --- the base image, or a root file system with the same Python and C library
if [ -z "${BASE:-}" ]; then
    rootfs=${ROOTFS:-$work/rootfs.tar}
    if [ ! -f "$rootfs" ]; then
        debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm "$work/root" \
            >"$work/debootstrap.log" || { tail "$work/debootstrap.log"; exit 1; }
        rm -rf "$work"/root/var/cache/apt/archives/*.deb "$work"/root/var/lib/apt/lists/* "$work"/root/var/log/*
        tar -C "$work/root" -cf "$rootfs.part" . && mv "$rootfs.part" "$rootfs"
        rm -rf "$work/root"
    fi
    BASE=localhost/base
    podman import --quiet --change CMD=python3 "$rootfs" "$BASE" >/dev/null
fi

# --- the build, from the last commit, with another model next to the shipped one
git clone -q "$checkout" "$work/checkout"
cp -a "$work/checkout/models/crop-yield" "$work/checkout/models/trained-here"
options=()
for folder in ${MOUNTS:-}; do options+=("--volume=$folder:$folder:ro"); done
[ -z "${PIP_CONF:-}" ] || options+=("--volume=$(realpath "$PIP_CONF"):/etc/pip.conf:ro")
begin=$SECONDS
if ! buildah bud --format docker --layers --isolation chroot --network host "${options[@]}" --build-arg BASE="$BASE" \
    --build-arg TORCH_INDEX="${TORCH_INDEX:-}" --tag "$image" "$work/checkout" >"$work/build.log" 2>&1; then
    tail -n 40 "$work/build.log"
    echo "0 passed, 1 failed"
    exit 1
fi
passed=1
echo "ok    it builds ($((SECONDS - begin)) s)"
command podman history --format '      {{.Size}}  {{.CreatedBy}}' "$image" 2>/dev/null | cut -c1-110 | grep -v '0 B '

# --- the content of the image
config() { podman image inspect "$image" --format "{{json .$1}}"; }
tree=$(podman image mount "$image")
echo "      $(du -sm --apparent-size "$tree/venv" | cut -f1) MB in /venv, $(du -sm --apparent-size "$tree" | cut -f1) MB in all"
check "its user is a number, and in group 0" test "$(config Config.User)" = '"10001:0"'
check "it contains only the shipped model" test "$(cd "$tree/service/models" && find . | sort | tr '\n' ' ')" = \
    ". ./crop-yield ./crop-yield/000001.safetensors ./crop-yield/current "
check "group 0 may write both folders" test "$(stat -c %a%g "$tree/service/models" "$tree/service/models/crop-yield" "$tree/service/state" | tr '\n' ' ')" = "7750 7750 7700 "
nothing() { ! find "$@" | grep .; }
check "it contains no tests, headers, pip or caches" nothing "$tree"/venv/lib/python3*/site-packages "$tree/root" \
    "(" -name tests -o -name include -o -name pip -o -name setuptools -o -name .cache -o -name "*.a" ")"
podman image unmount "$image" >/dev/null

# --- running it, with minimal rights
flags="--read-only --read-only-tmpfs=false --cap-drop ALL --security-opt no-new-privileges --network none
    --ulimit nofile=4096:4096 --ulimit nproc=4096:4096 --health-interval disable"
volumes="-v models:/service/models -v state:/service/state"
start() { # start NAME OPTION... IMAGE [COMMAND...]
    local name=$1
    shift
    # shellcheck disable=SC2086
    podman run -d --name "$name" $flags "$@" >/dev/null
}
call() { # call NAME OPTION...: curl in the container's network
    local pid
    pid=$(podman inspect "$1" --format '{{.State.Pid}}')
    nsenter --net="/proc/$pid/ns/net" curl -sS --max-time 90 "${@:2}"
}
ready() { # ready NAME [ADDRESS]
    for _ in $(seq 300); do
        call "$1" -f "${2:-127.0.0.1:8000}/health/ready" >/dev/null 2>&1 && return
        sleep 0.1
    done
    podman logs "$1"
    return 1
}
is() { tee /dev/stderr | jq -e "$1"; } # is CONDITION, of the JSON on standard input
predicts() { # predicts NAME VERSION
    call "$1" --json '{"instances": [[75, 63, 44]]}' 127.0.0.1:8000/predict |
        is "(.predictions[0][0] - 53.79556783791256 | fabs) < 1e-9 and .version == $2"
}
train() {
    call "$@" -H 'Content-Type: text/csv' -H 'Prefer: wait=60' \
        --data-binary "@$work/checkout/models/crop-yield/yields.csv" '127.0.0.1:8000/train?targets=apples,oranges'
}
trains() { train "$@" | is '.status == "succeeded"'; }
healthy() { podman healthcheck run "$1"; }
stops() { # stops NAME SECONDS: within this time, with the exit status of SIGTERM
    local begin=$SECONDS code
    podman stop -t 30 "$1" >/dev/null
    code=$(podman inspect "$1" --format '{{.State.ExitCode}}')
    echo "exit status $code after $((SECONDS - begin)) s"
    [[ $code == 0 || $code == 143 ]] && [ $((SECONDS - begin)) -le "$2" ]
}
log_is_json() { podman logs "$1" 2>&1 | grep -v '^time=' | jq -e . >/dev/null; }
has_no_rights() { podman exec "$1" cat /proc/1/status | tee /dev/stderr | grep -q "CapEff:.0000000000000000"; }
root_is_read_only() {
    podman exec "$1" sh -c 'for to in / /service /venv; do touch "$to/x" 2>&1 && exit 1; done; touch /tmp/x'
}

# shellcheck disable=SC2086
start one --tmpfs /tmp $volumes "$image"
check "it starts" ready one
check "it has no capabilities" has_no_rights one
check "it predicts as the README shows" predicts one 1
check "it is healthy" healthy one
check "it trains" trains one
refuses() { train one -H 'X-Forwarded-For: 192.0.2.1' | is '.status == 403'; }
check "it rejects a training from another machine" refuses
check "its root cannot be written, /tmp can" root_is_read_only one
check "each line of its log is JSON" log_is_json one
check "it stops in time" stops one 15
podman rm one >/dev/null

# shellcheck disable=SC2086
start two $volumes "$image"
check "a new container on the same volumes starts, without /tmp" ready two
check "it serves the version that was trained before" predicts two 2
check "it stops in time" stops two 15
podman rm two >/dev/null

mkdir "$work/keys"
key=$(head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n')
echo "nightly train,predict $(printf %s "$key" | sha256sum | cut -d' ' -f1)" >"$work/keys/keys.txt"
# shellcheck disable=SC2086
start three $volumes -v "$work/keys:/keys:ro" -e LINSERVE_API_KEYS_FILE=/keys/keys.txt -e UVICORN_WORKERS=2 "$image"
check "it starts with two workers and keys" ready three
check "another machine trains with a key" trains three -H 'X-Forwarded-For: 192.0.2.1' -H "X-API-Key: $key"
check "it is healthy" healthy three
check "it stops in time" stops three 15
podman rm three >/dev/null

# OpenShift runs an image as a random user of group 0.
start openshift --user 1000650000:0 "$image"
check "it starts as any user of group 0" ready openshift
check "it trains as this user" trains openshift
podman rm -vf -t 15 openshift >/dev/null

# --- ways to set its address
address() { # address NAME ADDRESS OPTION... [-- COMMAND...]
    local name=$1 address=$2 options=()
    shift 2
    while [ $# != 0 ] && [ "$1" != -- ]; do options+=("$1") && shift; done
    start "$name" "${options[@]}" "$image" "${@:2}"
    ready "$name" "$address" && healthy "$name"
    local status=$?
    podman rm -vf -t 15 "$name" >/dev/null
    return $status
}
check "it is healthy with a proxy" address proxy 127.0.0.1:8000 -e http_proxy=http://127.0.0.1:9
check "it listens on 8080 as SageMaker runs it" address serve 127.0.0.1:8080 -- serve
check "it listens where Vertex AI says" address vertex 127.0.0.1:8090 -e AIP_HTTP_PORT=8090
check "it takes the command and options" address workers 127.0.0.1:8000 -- linserve-server --workers 2
check "it is healthy with --port" address port 127.0.0.1:9000 -- linserve-server --port 9000
check "it is healthy on IPv6" address six '[::1]:8000' -e UVICORN_HOST=::
down() { # a container without the service
    start down "$image" sleep 60
    ! healthy down
}
check "a container without the service is not healthy" down
podman rm -vf -t 0 down >/dev/null

# --- signals, without an init process of the container runtime
for moment in 0 0.05 0.1 0.2 0.3 0.5 0.8 1.2 2 4; do
    start early "$image"
    sleep "$moment"
    check "stopped $moment s after its start, it ends within 2 s" stops early 2
    podman rm -vf -t 0 early >/dev/null
done

# --- too little memory, too few rights
start small --memory 300m --memory-swap 300m "$image"
check "it starts with 300 MB" ready small
check "it trains with 300 MB" trains small
wide() { # train with gradient descent, which keeps all rows in memory, from 20,000 rows of 500 columns
    awk 'BEGIN {srand(1); for (c = 0; c < 500; c++) printf "c%d,", c; print "y"
        for (r = 0; r < 20000; r++) {for (c = 0; c < 500; c++) printf "%.3f,", rand(); print rand()}}' >"$work/wide.csv"
    call small -H 'Content-Type: text/csv' -H 'Prefer: wait=60' --data-binary "@$work/wide.csv" \
        '127.0.0.1:8000/train?model=wide&targets=y&solver=gradient_descent' |
        is '.status == "failed" and (.error.type | endswith("memory-exceeded"))'
}
check "a training that needs more memory fails with a problem" wide
check "it still trains" trains small
podman rm -vf -t 15 small >/dev/null

mkdir -m 755 "$work/closed"
start closed -v "$work/closed:/service/state" "$image"
check "it starts with a state folder that it cannot write" ready closed
names_the_folder() { train closed | is '.status == 503 and (.detail | contains("/service/state") and contains("user 10001"))'; }
check "a training names the folder and the user" names_the_folder
podman rm -vf -t 15 closed >/dev/null

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
