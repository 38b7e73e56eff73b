#!/usr/bin/env bash
# Installs what the tests need beside Rust: Prosody and its community modules, slapd, Dovecot, profanity and HAProxy among others (Debian), slixmpp and slixmpp-omemo (PyPI), @xmpp/client (npm).
# With the argument `full` also what only `make test-full` needs: MIT Kerberos, Samba as a domain controller, Chromium and Converse.js,
# and Gajim with its OMEMO plug-in and a display without a screen.
# Idempotent; says nothing and takes no time when all of it is there.
set -euo pipefail
cd "$(dirname "$0")"

need=()
for pair in prosody:prosody slapd:slapd ldapsearch:ldap-utils doveadm:dovecot-imapd profanity:profanity tmux:tmux haproxy:haproxy openssl:openssl ip:iproute2 ss:iproute2 faketime:faketime unshare:util-linux python3:python3 node:nodejs npm:npm; do
    command -v "${pair%%:*}" >/dev/null || need+=("${pair##*:}")
done
# Among them is the one for privileged components.
[ -e /usr/lib/prosody/modules/mod_privilege/mod_privilege.lua ] || need+=(prosody-modules)
if [ "${1:-}" = full ]; then
    # What only `make test-full` needs: Samba, a Kerberos KDC, its client library for Python, what GSSAPI is built with, a browser, and Gajim.
    for pair in samba:samba-ad-dc ldbadd:ldb-tools krb5kdc:krb5-kdc kadmin.local:krb5-admin-server kinit:krb5-user chromium:chromium gajim:gajim Xvfb:xvfb import:imagemagick; do
        command -v "${pair%%:*}" >/dev/null || need+=("${pair##*:}")
    done
    [ -e /usr/share/samba/setup/provision.ldif ] || need+=(samba-ad-provision)
    [ -e /usr/include/gssapi/gssapi.h ] || need+=(libkrb5-dev)
    [ -e /usr/share/gajim/plugins/omemo/plugin.py ] || need+=(gajim-omemo)
    /usr/bin/python3 -c 'import gssapi' 2>/dev/null || need+=(python3-gssapi)
fi
python3 -c 'import ensurepip, venv' 2>/dev/null || need+=(python3-venv)
if [ ${#need[@]} -gt 0 ]; then
    sudo=""; [ "$(id -u)" = 0 ] || sudo=sudo
    $sudo apt-get update -qq
    # Prosody, slapd, Dovecot, the KDC, Samba and HAProxy must not start by themselves: the tests run their own.
    DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 $sudo apt-get install -y -qq --no-install-recommends "${need[@]}"
fi

if ! cmp -s clients/requirements.txt .venv/installed.txt; then
    python3 -m venv .venv
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -r clients/requirements.txt
    cp clients/requirements.txt .venv/installed.txt
fi

# What is in a package.json, unless it is there.
npm_install() {
    cmp -s "$1/package.json" "$1/node_modules/installed.json" && return
    (cd "$1" && npm install --silent --no-audit --no-fund)
    cp "$1/package.json" "$1/node_modules/installed.json"
}
npm_install clients
if [ "${1:-}" = full ]; then npm_install clients/web; fi
