# shellcheck shell=bash
# What the launchers share; sourced, not run.

# Print what is wrong with the command line and end with the status for bad input.
fail() {
  echo "error: $* See $0 --help." >&2
  exit 2
}

# Print the comment at the top of the script that was started.
print_help() {
  sed -n '2,/^[^#]/ s/^# \{0,1\}//p' "$0"
}

# Refuse a value that is no whole number from 1: option, value.
check_count() {
  [[ "$2" =~ ^[1-9][0-9]*$ ]] || fail "$1 must be a whole number from 1, got '$2'."
}

# Print words so that they can be pasted into a shell.
quoted() {
  local word line=''
  for word in "$@"; do
    [[ "$word" =~ ^[A-Za-z0-9_./:=@%+,-]+$ ]] || word="'${word//\'/\'\\\'\'}'"
    line+="${line:+ }$word"
  done
  printf '%s\n' "$line"
}

# Run a command; under --dry_run print it instead.
run() {
  if [[ "${dry_run:-}" ]]; then
    quoted "$@"
  else
    "$@"
  fi
}
