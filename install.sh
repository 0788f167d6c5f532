# shellcheck shell=bash
# install.sh: what ./run and ./test install, and how. Sourced; expects $root, the folder of the checkout.
# A second time it looks at what is there and does nothing.

# install_packages NAME...: the Debian packages that are missing, without starting their services.
install_packages() {
  local missing=() name installed policy=/usr/sbin/policy-rc.d made=
  set -- python3-venv "$@" # .venv needs Debian's own python3 with its venv module
  installed=$(dpkg-query -W -f '${db:Status-Status}:${Package}\n' "$@" 2>/dev/null) || true # of those it has heard of
  for name in "$@"; do
    [[ $'\n'$installed$'\n' == *$'\n'installed:"$name"$'\n'* ]] || missing+=("$name")
  done
  ((${#missing[@]})) || return 0
  echo "Installing Debian packages: ${missing[*]}"
  local sudo=()
  if ((EUID != 0)); then
    command -v sudo >/dev/null || fail "These Debian packages are missing: ${missing[*]}" \
      "Install them as root: apt-get install --no-install-recommends ${missing[*]}"
    sudo=(sudo)
  fi
  if [[ ! -e $policy ]]; then # an existing policy stays as it is
    printf '#!/bin/sh\nexit 101\n' | "${sudo[@]}" tee $policy >/dev/null
    "${sudo[@]}" chmod +x $policy
    made=yes
  fi
  local done=yes
  { "${sudo[@]}" apt-get update -q &&
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "${missing[@]}"; } || done=
  [[ $made ]] && "${sudo[@]}" rm -f $policy
  [[ $done ]] || fail "apt-get could not install one of: ${missing[*]}" \
    "What it said stands above. Check the network and /etc/apt/sources.list*, then start this again."
}

# install_python LOCKFILE...: .venv with exactly what the lock files name, and the workspace's members, editable.
install_python() {
  local venv=$root/.venv stamp
  mkdir -p "$root/.venv"
  exec 9>"$venv/.install-lock"
  flock 9
  stamp=$(cd "$root" && cat "$@" pyproject.toml ./*/pyproject.toml install.sh | sha256sum)
  if [[ $(cat "$venv/.installed-$*" 2>/dev/null) != "$stamp" ]]; then
    echo "Installing Python packages into .venv"
    rm -f "$venv"/.installed-*
    make_venv "$venv"
    (cd "$root" && install_locked "$venv" "$@") ||
      fail "The Python packages could not be installed." "What uv said stands above. Check the network, then start this again."
    echo "$stamp" >"$venv/.installed-$*"
  fi
  exec 9>&-
}

# make_venv FOLDER: Debian's Python, and the locked uv in it.
make_venv() {
  [[ -x $1/bin/pip ]] || /usr/bin/python3 -m venv "$1" || fail "python3 -m venv failed." "Remove $1 and start this again."
  local pin
  pin=$(sed -n '/^uv==/,/[^\\]$/p' "$root/requirements.lock")
  "$1/bin/pip" install --quiet --disable-pip-version-check --require-hashes -r <(echo "$pin") ||
    fail "pip could not install uv." "What it said stands above. Check the network, then start this again."
}

# use_pips_settings VENV: uv does not read pip's configuration, so hand it over. Not pip's extra indexes: every package
# of the locks is on the main one, and uv would take an extra index that knows a name for all of that name.
use_pips_settings() {
  local venv=$1 name
  pip_setting() { "$venv/bin/pip" config get "global.$1" 2>/dev/null || true; }
  export VIRTUAL_ENV=$venv
  : "${UV_DEFAULT_INDEX:=${PIP_INDEX_URL:-$(pip_setting index-url)}}"
  : "${SSL_CERT_FILE:=${PIP_CERT:-$(pip_setting cert)}}"
  for name in UV_DEFAULT_INDEX SSL_CERT_FILE; do
    if [[ ${!name} ]]; then export "${name?}"; else unset "$name"; fi
  done
}

# install_locked VENV LOCKFILE...: what the lock files name, and the workspace's members.
install_locked() {
  local venv=$1 file member members=() files=()
  shift
  use_pips_settings "$venv"
  for file in "$@"; do files+=(-r "$file"); done
  for member in $(sed -n 's/^members = \[\(.*\)\]/\1/p' pyproject.toml | tr -d '",'); do members+=(-e "./$member"); done
  "$venv/bin/uv" pip install --require-hashes "${files[@]}" &&
    "$venv/bin/uv" pip install --quiet --no-deps --no-build-isolation "${members[@]}" &&
    # 20 MB of source, whose compiling would hold up the first call for seconds
    "$venv/bin/python" -m compileall -q "$venv"/lib/python*/site-packages/phonenumbers/geodata
}

# fail WHAT DO: say what is wrong and what to do, and end.
fail() {
  printf '\n%s\n%s\n' "$@" >&2
  exit 1
}
