#!/usr/bin/env bash
# install.sh [--programs DIR] [--prefix DIR] [--destdir DIR] [--uninstall]
# Installs the programs in DIR with manual pages, bash completions, examples and systemd unit below the prefix (/usr/local), and
# /etc/xlvs/xlvs.toml if there is none. Nothing else in /etc is touched. With --destdir all of that goes below another root, for a
# package. --uninstall removes what was installed, and leaves /etc/xlvs.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
PROGRAMS=$HERE/../target/release PREFIX=/usr/local DESTDIR='' UNINSTALL=''

die() {
  printf 'install: %s\n' "$1" >&2
  exit 1
}

while (($#)); do
  case $1 in
  --programs) PROGRAMS=$2 && shift 2 ;;
  --prefix) PREFIX=${2%/} && shift 2 ;;
  --destdir) DESTDIR=${2%/} && shift 2 ;;
  --uninstall) UNINSTALL=1 && shift ;;
  *) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}" && exit 2 ;;
  esac
done
[[ $PREFIX == /* || -z $PREFIX ]] || die "the prefix has to be an absolute path, not $PREFIX"
readonly UNIT=$PREFIX/lib/systemd/system/xlvs.service DOC=$PREFIX/share/doc/xlvs
readonly LIST=$DOC/installed

# put MODE SOURCE TARGET: beside it first, so that nobody finds half a program.
put() {
  install -D -m "$1" "$2" "$DESTDIR$3.new"
  mv -f "$DESTDIR$3.new" "$DESTDIR$3"
  installed+=("$3")
}

# made TARGET COMMAND...: what the command prints.
made() {
  local target=$1
  shift
  "$@" >"$work/made" || die "$* failed"
  put 644 "$work/made" "$target"
}

install_all() {
  local name page
  for name in xlvs ipvsadm ipvsadm-save ipvsadm-restore; do
    [[ -x $PROGRAMS/$name ]] || die "$PROGRAMS/$name is missing: \`make build' first"
    put 755 "$PROGRAMS/$name" "$PREFIX/sbin/$name"
  done
  for page in ipvsadm.8 xlvs.8 lvs.cf.5; do
    made "$PREFIX/share/man/man${page##*.}/$page" "$PROGRAMS/xlvs" man "${page%.*}"
  done
  for name in ipvsadm xlvs; do
    made "$PREFIX/share/bash-completion/completions/$name" "$PROGRAMS/xlvs" completion bash "$name"
  done
  for name in lvs.cf health-checks.cf iptables xlvs.toml; do
    put 644 "$HERE/$name" "$DOC/$name"
  done
  made "$UNIT" sed "s|/usr/sbin/|$PREFIX/sbin/|" "$HERE/systemd/xlvs.service"
  made "$LIST" printf '%s\n' "${installed[@]}" "$LIST"
  if [[ -e $DESTDIR/etc/xlvs/xlvs.toml ]]; then
    echo "/etc/xlvs/xlvs.toml stays as it is"
  else
    install -D -m 644 "$HERE/xlvs.toml" "$DESTDIR/etc/xlvs/xlvs.toml"
  fi
}

# Without its unit it could not be ended as it has to be.
is_in_use() {
  systemd_runs || return 1
  [[ $(systemctl show --property ActiveState --value xlvs) != @(inactive|failed) ]] \
    || systemctl is-enabled --quiet xlvs 2>/dev/null
}

uninstall_all() {
  local file
  [[ -e $DESTDIR$LIST ]] || die "nothing is installed below ${PREFIX:-/}: $LIST is missing"
  ! is_in_use || die 'xlvs runs, or is started with the machine: `systemctl disable --now xlvs'"'"' first'
  while read -r file; do
    rm -f "$DESTDIR$file"
  done <"$DESTDIR$LIST"
  rmdir "$DESTDIR$DOC"
  echo 'removed; what is in /etc/xlvs and /etc/sysconfig stays'
}

systemd_runs() {
  [[ -z $DESTDIR && -d /run/systemd/system ]]
}

# systemd learns of it, if it runs here; nothing is started or enabled.
tell_systemd() {
  ! systemd_runs || systemctl daemon-reload
}

if [[ $UNINSTALL ]]; then
  uninstall_all
  tell_systemd
  exit
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
installed=()
install_all
tell_systemd
cat <<END
installed below $DESTDIR${PREFIX:-/}; next:
  xlvs check /etc/sysconfig/ha/lvs.cf      the site's file; an example is $DOC/lvs.cf
  systemctl enable --now xlvs
END
