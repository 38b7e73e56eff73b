#!/usr/bin/env bash
# profanity, in a tmux of its own, logs in, greets its partner, waits for one answer, and quits.
#
# Arguments: host port starttls|direct jid password partner
# Prints the answer; on failure the last screen.
set -euo pipefail
# Its windows are per bare JID.
host=$1 port=$2 mode=$3 jid=$4 password=$5 partner=${6%%/*}
home=$(mktemp -d)
socket="$home/tmux.sock"
export HOME="$home" XDG_CONFIG_HOME="$home/.config" XDG_DATA_HOME="$home/.local/share" LANG=C.UTF-8 LC_ALL=C.UTF-8
mkdir -p "$XDG_CONFIG_HOME/profanity"
printf '[ui]\nsplash=false\nenc.warn=false\n' >"$XDG_CONFIG_HOME/profanity/profrc"

t() { tmux -S "$socket" "$@"; }
cleanup() { t kill-server 2>/dev/null || true; rm -rf "$home"; }
trap cleanup EXIT
screen() { t capture-pane -p -t chat; }
# Looks at the screen until the pattern shows.
await() {
    local deadline=$((SECONDS + 30))
    until screen | grep -q -- "$1"; do
        if [ "$SECONDS" -ge "$deadline" ]; then
            echo "not seen: $1" >&2
            screen >&2
            exit 1
        fi
        read -r -t 0.1 <> <(:) || true
    done
}
say() { t send-keys -t chat -l -- "$1"; t send-keys -t chat Enter; }

t new-session -d -s chat -x 160 -y 40 profanity
await 'CONSOLE\|Profanity'
case $mode in
    starttls) tls=force ;;
    direct) tls=legacy ;;
esac
say "/connect $jid server $host port $port tls $tls"
await 'Enter password'
say "$password"
# The certificate signs itself: a person reads it and says yes.
await "Use '/tls allow'"
say "/tls allow"
await 'logged in successfully'
say "/msg $partner hello from profanity over $mode"
await "answer to profanity over $mode"
echo "RECEIVED answer to profanity over $mode"
say "/quit"
