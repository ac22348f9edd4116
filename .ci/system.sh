#!/bin/sh
# System packages for `make live` (PortAudio, a virtual environment) and `make test` (JACK and PipeWire servers, a compiler).
# Installs what is missing through apt when root; otherwise prints the exact command and goes on.
set -eu

python=${PYTHON:-python3}
if ! "$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
    echo "rtgan needs Python 3.11, 3.12 or 3.13, and '$python' is not one; try: make PYTHON=python3.12 ..." >&2
    exit 1
fi

missing=""
want() { missing="$missing $*"; }
# Debian keeps ldconfig where only root looks.
library() { PATH="$PATH:/usr/sbin:/sbin" ldconfig -p 2>/dev/null | grep -q "$1"; }

case "$(uname -s)" in
    Linux) ;;
    *) exit 0 ;; # elsewhere the wheels bring PortAudio along
esac

"$python" -c 'import ensurepip, venv' 2>/dev/null || want python3-venv
library 'libportaudio\.so\.2' || want libportaudio2
# Where python-rtmidi has no wheel, pip builds it.
if ! "$python" -c 'import sys, platform as p; sys.exit(p.machine() != "x86_64" or sys.version_info[:2] > (3, 12))'; then
    if [ ! -e /usr/include/jack/jack.h ] || [ ! -e /usr/include/alsa/asoundlib.h ] || ! command -v g++ >/dev/null 2>&1; then
        want g++ pkg-config python3-dev libasound2-dev libjack-jackd2-dev
    fi
fi
if [ "${1:-live}" = test ]; then
    command -v jackd >/dev/null 2>&1 || want jackd2
    command -v jack_lsp >/dev/null 2>&1 || want jack-tools
    command -v jack-play >/dev/null 2>&1 || want jack-tools
    command -v jack_midi_clock >/dev/null 2>&1 || want jack-midi-clock
    [ -x /usr/bin/chromium ] || want chromium fonts-dejavu-core
    for program in pipewire wireplumber pipewire-pulse pw-jack pw-link pactl dbus-daemon; do
        command -v $program >/dev/null 2>&1 && continue
        want pipewire pipewire-bin wireplumber pipewire-pulse pipewire-jack pulseaudio-utils dbus
        break
    done
    command -v ffmpeg >/dev/null 2>&1 || want ffmpeg
    command -v fluidsynth >/dev/null 2>&1 || want fluidsynth
    command -v cc >/dev/null 2>&1 || want gcc libc6-dev
fi

[ -z "$missing" ] && exit 0
if ! command -v apt-get >/dev/null 2>&1; then
    echo "please install (Debian names):$missing" >&2
    exit 0
fi
if [ "$(id -u)" = 0 ]; then
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q
    # shellcheck disable=SC2086
    apt-get install -y -q --no-install-recommends $missing
else
    echo "please run: sudo apt-get install --no-install-recommends$missing" >&2
fi
