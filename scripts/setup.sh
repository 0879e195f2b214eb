# Sourced by the other scripts: brings this machine to where the script can run.
#   setup_packages NAME...   Debian packages that are missing, by apt (sudo when not root)
#   setup_node               tests/node/node_modules with the locked npm packages
#   setup_promtool           .venv/bin/promtool, which checks the rules for Prometheus
#   setup_python             .venv with the locked Python packages and birthmark itself
# A second run does nothing and takes well under a second.

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$top" || exit 1

say() { printf '%s\n' "$*" >&2; }

as_root() {
  if [ "$(id -u)" -eq 0 ]; then "$@"
  elif command -v sudo >/dev/null; then sudo "$@"
  else
    say "These Debian packages are needed and this user cannot install them: $*"
    say "Run the same script as root once, or install sudo."
    exit 1
  fi
}

setup_packages() {
  local missing=() name
  for name in "$@"; do
    dpkg-query -W -f '${Status}' "$name" 2>/dev/null | grep -q 'ok installed' || missing+=("$name")
  done
  [ ${#missing[@]} -eq 0 ] && return
  say "Installing Debian packages: ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  as_root apt-get update -qq >&2
  # policy-rc.d is left alone; services that a package starts are not used by the tests.
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
}

setup_python() {
  # The system's Python: its ssl module uses the system's libssl, which token keys behind an engine need.
  setup_packages python3 python3-venv python3-dev gcc libc6-dev
  setup_packages libmbedtls-dev # the example in C
  setup_packages libtss2-dev libtss2-tcti-swtpm0 pkg-config # what tpm2-pytss is built against, and its way to a TPM of software
  local python=${BIRTHMARK_PYTHON:-/usr/bin/python3}
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    say "Birthmark needs Python 3.11 or newer; $python is $("$python" --version 2>&1)."
    say "Set BIRTHMARK_PYTHON to a newer one that uses the system's OpenSSL."
    exit 1
  }
  local want
  want=$(sha256sum requirements.lock scripts/pip.lock pyproject.toml tests/azure_device_rc.lock | sha256sum | cut -d' ' -f1)
  if [ "$(cat .venv/birthmark.stamp 2>/dev/null)" != "$want" ]; then
    say "Preparing .venv with the locked packages (about a minute, once)"
    [ -x .venv/bin/python ] || "$python" -m venv .venv
    # Debian 12's pip 23.0 refuses a locked package that is also asked for by an extra, once a newer one of it is out.
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r scripts/pip.lock
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
    rm -rf .venv/azure-device-rc
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes \
      --target .venv/azure-device-rc -r tests/azure_device_rc.lock
    printf '%s' "$want" > .venv/birthmark.stamp
  fi
  export PATH="$top/.venv/bin:$PATH"
  local image=src/birthmark/store/newest.sql
  [ -f "$image" ] && [ -z "$(find src/birthmark/store/migrations -name '*.py' -newer "$image")" ] ||
    python tools/make_schema.py
}

setup_promtool() {
  # Of its package the one program: the package would start a server.
  [ -x .venv/bin/promtool ] && return
  say "Fetching promtool from the Debian package prometheus (once)"
  local place
  place=$(mktemp -d)
  chmod 755 "$place"
  (cd "$place" && (apt-get download -q prometheus || { as_root apt-get update -qq && apt-get download -q prometheus; }) >&2 2>/dev/null)
  dpkg-deb -x "$place"/prometheus_*.deb "$place/content"
  cp "$place/content/usr/bin/promtool" .venv/bin/promtool
  rm -rf "$place"
}

setup_node() {
  command -v npm >/dev/null || setup_packages nodejs npm
  local want
  want=$(sha256sum tests/node/package-lock.json | cut -d' ' -f1)
  [ "$(cat tests/node/node_modules/birthmark.stamp 2>/dev/null)" = "$want" ] && return
  say "Preparing tests/node with the locked npm packages (some seconds, once)"
  (cd tests/node && npm ci --omit=dev --ignore-scripts --no-audit --no-fund --loglevel=error >&2)
  printf '%s' "$want" > tests/node/node_modules/birthmark.stamp
}
