#!/bin/bash
# Runs Darkroom on its EC2 host; deploy/ec2/host/boot.sh installs it as /usr/local/sbin/darkroom-host. Without a VOLUME
# it is a host with workers alone, which join Redis on the first host.
#   start         at every boot: attaches volume and address, mounts, and runs the tag that the SSM parameter names
#   upgrade TAG   in place, with the settings as they are in SSM now; if TAG does not get healthy in time, what ran
#                 before runs again, and the exit is 1 (3 if that does not get healthy either). SSM keeps the old tag:
#                 who calls this changes it after exit 0.
#   status | stop | compose ARGUMENT...
#   guard         before Docker starts: drops the instance metadata for containers
set -euo pipefail
shopt -s inherit_errexit
umask 077
# shellcheck source=/dev/null
. /etc/darkroom/host.conf
export AWS_DEFAULT_REGION AWS_RETRY_MODE=standard AWS_MAX_ATTEMPTS=5
METADATA=${AWS_EC2_METADATA_SERVICE_ENDPOINT:-http://169.254.169.254}
OUTBOUND_ADDRESS=192.168.213.2 # as in docker-compose.ec2.yml
DATA=/srv/darkroom
RELEASES=/opt/darkroom # current/ runs; next/ is tried
TLS=/etc/darkroom/tls # redis.crt, and redis.key with Redis
FOLDER=file:///var/lib/darkroom/uploads # as in docker-compose.yml
VOLUME_SECONDS_MAX=900 # the host that this one replaces may hold the volume for so long
DEVICE_SECONDS_MAX=120
PULL_SECONDS_MAX=900 # of each image
HEALTHY_SECONDS_MAX=300 # of each step
DRAIN_SECONDS_MAX=600
LOCK_SECONDS_MAX=1800
POLL_SECONDS=3

say() { echo "darkroom-host: $*"; }
die() { say "$*" >&2; exit 1; }

guard() {
  local rule=(PREROUTING ! --in-interface lo --destination 169.254.169.254/32 --jump DROP)
  [ -z "$S3" ] || rule+=(! --source "$OUTBOUND_ADDRESS/32")
  iptables --wait 10 --table raw --check "${rule[@]}" 2>/dev/null || iptables --wait 10 --table raw --insert "${rule[@]}"
}

metadata() { # PATH
  local token
  token=$(curl --fail --silent --show-error --max-time 5 --retry 5 --request PUT \
    --header 'X-aws-ec2-metadata-token-ttl-seconds: 300' "$METADATA/latest/api/token")
  curl --fail --silent --show-error --max-time 5 --retry 5 --header "X-aws-ec2-metadata-token: $token" \
    "$METADATA/latest/meta-data/$1"
}

parameter() { # NAME
  aws ssm get-parameter --with-decryption --name "$1" --query Parameter.Value --output text
}

attach() { # INSTANCE
  local answer state holder deadline=$((SECONDS + VOLUME_SECONDS_MAX))
  while true; do
    answer=$(aws ec2 describe-volumes --volume-ids "$VOLUME" \
      --query 'Volumes[0].[State, Attachments[0].InstanceId]' --output text)
    read -r state holder <<<"$answer"
    [ "$holder" != "$1" ] || break
    ((SECONDS < deadline)) || die "$VOLUME is still $state ($holder) after $VOLUME_SECONDS_MAX s"
    if [ "$state" = available ]; then
      aws ec2 attach-volume --volume-id "$VOLUME" --instance-id "$1" --device /dev/sdf >/dev/null || true # or another did
    else
      say "waits for $VOLUME, which is $state at $holder"
    fi
    sleep "$POLL_SECONDS"
  done
  aws ec2 associate-address --allocation-id "$ADDRESS" --instance-id "$1" --allow-reassociation >/dev/null
}

device() {
  local path deadline=$((SECONDS + DEVICE_SECONDS_MAX))
  while ((SECONDS < deadline)); do
    for path in "/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_${VOLUME/-/}" /dev/sdf /dev/xvdf; do
      [ ! -b "$path" ] || { echo "$path"; return; }
    done
    sleep 1
  done
  die "no device of $VOLUME after $DEVICE_SECONDS_MAX s"
}

mount_volume() {
  local disk found=0
  if ! mountpoint --quiet "$DATA"; then
    disk=$(device)
    blkid --probe "$disk" >/dev/null || found=$?
    case $found in
      0) ;;
      2) # nothing is on it, or it cannot be read
        head --bytes=1M "$disk" >/dev/null || die "$disk cannot be read"
        say "formats $disk, which is empty"
        mkfs.ext4 -q -L darkroom-data "$disk"
        ;;
      *) die "blkid fails with $found on $disk: not formatted, not mounted" ;;
    esac
    mkdir -p "$DATA"
    mount -o nodev,nosuid,noexec "$disk" "$DATA"
  fi
  # Redis starts only where this file is: on the volume, and not in a folder below a missing mount.
  install -d -o 999 -g 999 -m 700 "$DATA/redis"
  install -d -o 10001 -g 10001 -m 700 "$DATA/edge" "$DATA/uploads"
  install -o 999 -g 999 -m 400 /dev/null "$DATA/redis/darkroom-volume"
}

setting() { # RELEASE NAME
  { sed -n "s/^$2=//p" "$RELEASES/$1/.env" "$RELEASES/$1/release.env" 2>/dev/null | tr -d "\"'"; } || true
}

compose() { # RELEASE ARGUMENT...
  local folder=$RELEASES/$1 files=(--file docker-compose.yml --file docker-compose.ec2.yml)
  [[ $(setting "$1" UPLOADS_URL) != s3:* ]] || files+=(--file docker-compose.s3.yml)
  [ -z "$(setting "$1" REDIS_TLS_PORT)" ] || files+=(--file docker-compose.hosts.yml)
  [ "$VOLUME" ] || files=(--file docker-compose.worker.yml)
  [ -z "$GPU" ] || files+=(--file docker-compose.gpu.yml)
  (cd "$folder" && docker compose --project-name "$NAME" --env-file .env --env-file release.env "${files[@]}" "${@:2}")
}

pull() { # IMAGE
  timeout "$PULL_SECONDS_MAX" docker pull --quiet "$1" >/dev/null ||
    timeout "$PULL_SECONDS_MAX" docker pull --quiet "$1" >/dev/null || { say "$1 cannot be pulled" >&2; return 1; }
}

certificate() { # of Redis for other hosts, and the settings that go with it
  install -d -m 755 "$TLS" && parameter "/$NAME/workers/redis.crt" >"$TLS/new" && chmod 444 "$TLS/new" &&
    mv "$TLS/new" "$TLS/redis.crt" && echo "REDIS_TLS_FOLDER=$TLS" || return
  [ "$VOLUME" ] || return 0
  parameter "/$NAME/redis.key" >"$TLS/new" && chown 999 "$TLS/new" && mv "$TLS/new" "$TLS/redis.key" || return
  bind=$(metadata local-ipv4) && echo "REDIS_TLS_BIND=$bind" || return
  [ "$(setting next UPLOADS_URL)" ] || echo UPLOADS_URL=redis: # no other host sees the folder
}

fetch() ( # TAG: its images, compose files and settings, to next/
  next=$RELEASES/next
  rm -rf "$next" && mkdir -p "$next" || return
  # ECR's tokens last 12 hours: a new one each time, kept in memory (/run) and dropped after the last image.
  DOCKER_CONFIG=$(mktemp --directory /run/darkroom-docker.XXXXXX) || return
  export DOCKER_CONFIG
  trap 'rm -rf "$DOCKER_CONFIG"' EXIT
  login=$(aws ecr get-login-password | docker login --username AWS --password-stdin "$REGISTRY" 2>&1) ||
    { say "$login" >&2; return 1; }
  pull "$REGISTRY/darkroom-api:$1" || return
  docker run --rm --network none --entrypoint tar "$REGISTRY/darkroom-api:$1" -C /srv/compose -c . | tar -x -C "$next" || return
  printf 'REGISTRY=%s/\nTAG=%s\n' "$REGISTRY" "$1" >"$next/release.env" || return
  parameter "$ENVIRONMENT_PARAMETER" >"$next/.env" || return
  if [ -z "$VOLUME" ] || [ "$(setting next REDIS_TLS_PORT)" ]; then
    certificate >>"$next/release.env" || return
  fi
  images=$(compose next config --images) || return
  for image in $images; do pull "$image" || return; done
  # By digest: a release in which Redis or the edge is the same does not restart it.
  for image in $images; do
    case $image in
      */darkroom-redis:*) key=REDIS_IMAGE ;;
      */darkroom-edge:*) key=EDGE_IMAGE ;;
      *) continue ;;
    esac
    digest=$(docker image inspect --format '{{index .RepoDigests 0}}' "$image") || return
    echo "$key=$digest" >>"$next/release.env" || return
  done
)

up() { # RELEASE [SERVICE...]: until they are healthy
  compose "$1" up --detach --no-build --pull never --wait --wait-timeout "$HEALTHY_SECONDS_MAX" "${@:2}"
}

tell() { # RELEASE: why it did not get healthy
  local services=(redis worker outbound api)
  [ -n "$VOLUME" ] || services=(worker)
  compose "$1" ps --all >&2 || true
  compose "$1" logs --no-color --no-log-prefix --tail 10 "${services[@]}" >&2 || true
}

drain() { # RELEASE PLACE: its workers do the uploads that wait at PLACE, outside of Redis
  local bytes deadline=$((SECONDS + DRAIN_SECONDS_MAX))
  [ "$VOLUME" ] && [ "$2" != redis: ] || return 0
  up "$1" --no-deps redis || return
  while bytes=$(compose "$1" exec -T redis redis-admin hget stats spooled </dev/null) || return; do
    [[ $bytes =~ ^[0-9]*$ ]] || { say "Redis does not say what waits: $bytes" >&2; return 1; }
    ((bytes > 0)) || return 0
    say "$bytes bytes of uploads wait in $2"
    ((SECONDS < deadline)) || return
    UPLOADS_URL=$2 up "$1" --no-deps worker outbound || return
    sleep "$POLL_SECONDS"
  done
}

roll() { # RELEASE FORMER: workers before the API, which may write what only they can read; the rest if it changed
  local former
  if [ -z "$VOLUME" ]; then
    true
  elif [ "$(setting "$1" UPLOADS_URL)" = "$(setting "$2" UPLOADS_URL)" ]; then
    up "$1" --no-deps worker outbound && up "$1" --no-deps api
  else # another place of uploads: none may come for the former, and the API marks the new one
    former=$(setting "$2" UPLOADS_URL)
    compose "$2" stop api && drain "$2" "${former:-$FOLDER}" && compose "$2" stop worker outbound && up "$1" --no-deps api
  fi && up "$1" --remove-orphans
}

keep() { # next/ runs: it is what later starts and failed upgrades go back to
  rm -rf "$RELEASES/current"
  mv "$RELEASES/next" "$RELEASES/current"
  prune
}

prune() { # The root disk holds two releases. By tag: an image that did not change runs under an older tag, and `docker
  # image prune --all` would remove the tag by which this release goes back to it.
  docker images --format '{{.Repository}}:{{.Tag}}' --filter "reference=$REGISTRY/*" |
    grep --invert-match ":$(tag_of current)\$" | xargs --no-run-if-empty docker image rm >/dev/null 2>&1 || true
  docker image prune --force >/dev/null
}

tag_of() { setting "$1" TAG; }

start() {
  local instance tag place
  if [ -n "$VOLUME" ]; then
    instance=$(metadata instance-id)
    attach "$instance"
    mount_volume
  fi
  tag=$(parameter "$TAG_PARAMETER")
  if fetch "$tag"; then
    [ "$(setting next UPLOADS_URL)" != redis: ] || place=$FOLDER # it may have some of the host that this one replaces
    { drain next "${place:-redis:}" && up next --remove-orphans; } || { tell next; die "$tag did not get healthy"; }
    keep
  elif [ "$(tag_of current)" = "$tag" ]; then
    say "starts $tag as it is here" >&2
    up current || { tell current; die "$tag did not get healthy"; }
  else
    die "$tag cannot be fetched"
  fi
  say "runs $tag"
}

upgrade() { # TAG
  local before
  before=$(tag_of current)
  [ -n "$before" ] || die "nothing runs here that could be upgraded"
  fetch "$1" || die "$1 cannot be fetched; $before runs on"
  if roll next current; then
    keep
    say "runs $1"
    return
  fi
  say "$1 did not get healthy; $before runs again" >&2
  tell next
  roll current next || { say "$before did not get healthy either" >&2; exit 3; }
  prune
  exit 1
}

case ${1:-} in
  guard) guard ;;
  status)
    [ -n "$(tag_of current)" ] || die "nothing runs here yet"
    say "current $(tag_of current)"
    [ ! -e "$RELEASES/current/.env" ] || say "settings $(sha256sum <"$RELEASES/current/.env" | cut --delimiter ' ' --fields 1)"
    compose current ps
    ;;
  compose) compose current "${@:2}" ;;
  start | upgrade | stop)
    exec 9>/run/darkroom-host.lock
    flock --timeout "$LOCK_SECONDS_MAX" 9 || die "another start, upgrade or stop runs for over $LOCK_SECONDS_MAX s"
    case $1 in
      start) start ;;
      upgrade) upgrade "${2:?the tag}" ;;
      stop)
        compose current stop
        ! mountpoint --quiet "$DATA" || umount "$DATA"
        ;;
    esac
    ;;
  *) die "start | upgrade TAG | status | stop | compose ARGUMENT... | guard" ;;
esac
