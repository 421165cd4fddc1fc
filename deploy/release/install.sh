#!/bin/sh
# Installs leakslope: fetches the archive for this machine, checks it against the checksums of the release, and puts the
# binary where programs are. It starts nothing and changes nothing else.
#
#   LEAKSLOPE_FROM   where the release lies          [default: the latest one on GitHub]
#   LEAKSLOPE_TO     the folder for the binary       [default: /usr/local/bin for root, else ~/.local/bin]
set -eu

from=${LEAKSLOPE_FROM:-https://github.com/leakslope/leakslope/releases/latest/download}
if [ "$(id -u)" = 0 ]; then to=/usr/local/bin; else to=${HOME:-}/.local/bin; fi
to=${LEAKSLOPE_TO:-$to}

fail() { echo "install.sh: $*" >&2; exit 1; }

[ "$(uname -s)" = Linux ] || fail "leakslope runs on Linux, and this is $(uname -s)"
case $(uname -m) in
  x86_64 | amd64) platform=linux-x64 ;;
  aarch64 | arm64) platform=linux-arm64 ;;
  *) fail "there is no binary for $(uname -m): build it with cargo" ;;
esac
archive=leakslope-$platform.tar.gz

if command -v curl >/dev/null; then
  fetch() { curl --fail --silent --show-error --location --retry 2 --output "$2" "$1"; }
elif command -v wget >/dev/null; then
  fetch() { wget --quiet --output-document="$2" "$1"; }
else
  fail "neither curl nor wget is here"
fi
command -v sha256sum >/dev/null || fail "sha256sum is not here, so nothing can be verified"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
fetch "$from/SHA256SUMS" "$work/SHA256SUMS" || fail "no checksums at $from"
fetch "$from/$archive" "$work/$archive" || fail "no $archive at $from"
expected=$(awk -v name="$archive" '$2 == name { print $1 }' "$work/SHA256SUMS")
[ "${#expected}" = 64 ] || fail "SHA256SUMS does not name $archive"
found=$(sha256sum "$work/$archive" | cut -d ' ' -f 1)
[ "$found" = "$expected" ] || fail "$archive is not what the release says: $found instead of $expected; nothing was installed"

mkdir "$work/unpacked"
tar -x -z -f "$work/$archive" -C "$work/unpacked" leakslope
version=$("$work/unpacked/leakslope" --version) || fail "the binary does not run here"
mkdir -p "$to"
# A new file under the name, so that one that runs is not written into.
cp "$work/unpacked/leakslope" "$to/.leakslope.new"
chmod 0755 "$to/.leakslope.new"
mv -f "$to/.leakslope.new" "$to/leakslope"

echo "installed $version in $to"
case :$PATH: in
  *:"$to":*) name=leakslope ;;
  *) name=$to/leakslope ;;
esac
echo "watch your apps:      $name            (the page: http://127.0.0.1:19209/)"
echo "check how they run:   $name doctor"
