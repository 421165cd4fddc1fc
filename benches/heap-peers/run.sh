#!/usr/bin/env bash
# Measures leakslope and its peers on the same snapshot, one after the other in turns, and checks that they agree.
#
#   ./run.sh [SNAPSHOT] [ROUNDS]   the table of time and memory (least of the rounds)
#   ./run.sh --check [SNAPSHOT]    node by node: what agrees with whom
#
# Needs cargo, node, npm and GNU time (apt-get install -y time). Snapshots are made where none is given.
set -euo pipefail
cd "$(dirname "$0")"
check=no
if [ "${1:-}" = --check ]; then check=yes; shift; fi
scratch=${TMPDIR:-/tmp}/leakslope-heap-peers
mkdir -p "$scratch"
snapshot=${1:-}
rounds=${2:-3}
[ -x /usr/bin/time ] || { echo "GNU time is missing; install it: apt-get install -y time" >&2; exit 1; }
[ -d node_modules ] || PUPPETEER_SKIP_DOWNLOAD=1 npm install --ignore-scripts --no-audit --no-fund --silent
cargo build --release --quiet
bin=${CARGO_TARGET_DIR:-target}/release
if [ -z "$snapshot" ]; then
  if [ $check = yes ]; then size=10000; else size=136000; fi
  snapshot=$scratch/$size.heapsnapshot
  [ -s "$snapshot" ] || node --max-old-space-size=10000 make-snapshot.js $size "$snapshot"
fi

node_run() { NODE_OPTIONS=--max-old-space-size=14000 node "$@"; }
run() {
  case $1 in
    leakslope) "$bin/ours" "$snapshot" ;;
    v8-heap-parser) "$bin/v8-heap-parser" "$snapshot" ;;
    heap-snapshot-toolkit) node_run devtools.mjs "$snapshot" ;;
    memlab) node_run memlab.cjs "$snapshot" ;;
  esac
}
export -f run node_run
export bin snapshot

if [ $check = yes ]; then
  "$bin/ours" "$snapshot" --dump "$scratch/ours" > /dev/null
  "$bin/v8-heap-parser" "$snapshot" "$scratch/v8-heap-parser" > /dev/null
  node_run devtools.mjs "$snapshot" "$scratch/devtools" > /dev/null
  node_run memlab.cjs "$snapshot" "$scratch/memlab" > /dev/null 2>&1
  echo "$(wc -l < "$scratch/ours") nodes of $(basename "$snapshot")"
  if cmp -s "$scratch/ours" "$scratch/devtools"; then
    echo "DevTools' own code: shallow size, retained size, distance and class are the same for every node"
  else
    echo "DevTools' own code: $(diff "$scratch/ours" "$scratch/devtools" | grep -c '^<') nodes differ"
  fi
  # The peers leave internal arrays apart, so they are compared by their own, simpler rules.
  for peer in v8-heap-parser memlab; do
    "$bin/ours" "$snapshot" --dump-as $peer "$scratch/ours-as"
    paste "$scratch/ours-as" "$scratch/$peer" | awk -F'\t' -v peer="$peer" '
      { all++ }
      $1 != $4 || $2 != $5 { strange++ }
      $3 == $6 { same++ }
      END { printf "%s: the retained size is the same for %d of %d nodes (%.3f %%)", peer, same, all, 100 * same / all
            if (strange) printf "; %d ids or sizes differ", strange
            print "" }'
  done
  exit
fi

peers="leakslope v8-heap-parser heap-snapshot-toolkit memlab"
: > "$scratch/times"
for _ in $(seq "$rounds"); do
  for peer in $peers; do
    /usr/bin/time -o "$scratch/time" -f '%e %U %S %M' bash -c "run $peer" > /dev/null 2>&1
    echo "$peer $(tail -1 "$scratch/time")" >> "$scratch/times"
  done
done
echo "$(basename "$snapshot"), $(($(stat -c %s "$snapshot") / 1000000)) MB, least of $rounds rounds"
awk '
  { cpu = $3 + $4
    if (!($1 in wall) || $2 < wall[$1]) wall[$1] = $2
    if (!($1 in spent) || cpu < spent[$1]) spent[$1] = cpu
    if (!($1 in memory) || $5 < memory[$1]) memory[$1] = $5
    if (!seen[$1]++) order[++count] = $1 }
  END {
    print "| reader | time | processor | memory |"
    print "|---|---:|---:|---:|"
    for (i = 1; i <= count; i++) { name = order[i]
      printf "| %s | %.2f s (%.1f×) | %.2f s (%.1f×) | %d MB (%.1f×) |\n", name,
        wall[name], wall[name] / wall["leakslope"], spent[name], spent[name] / spent["leakslope"],
        memory[name] / 1000, memory[name] / memory["leakslope"] } }' "$scratch/times"
