#!/usr/bin/env bash
# Installs what the comparison starts: ejabberd and Prosody from Debian, and openssl. The packages' own services are not
# started: the comparison runs its own, in temporary directories. Idempotent.
set -euo pipefail

need=()
for pair in /usr/sbin/ejabberdctl:ejabberd /usr/share/doc/erlang-p1-sqlite3:erlang-p1-sqlite3 /usr/bin/prosody:prosody /usr/share/doc/lua-dbi-sqlite3:lua-dbi-sqlite3 /usr/bin/openssl:openssl; do
    [ -e "${pair%%:*}" ] || need+=("${pair##*:}")
done
[ ${#need[@]} -gt 0 ] || exit 0

sudo=""; [ "$(id -u)" = 0 ] || sudo=sudo
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    # Debian's way to say "do not start services of packages now"; taken away again at the end.
    printf '#!/bin/sh\nexit 101\n' | $sudo tee "$policy" >/dev/null
    $sudo chmod 755 "$policy"
    trap '$sudo rm -f "$policy"' EXIT
fi
$sudo apt-get update -qq
DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends "${need[@]}"
