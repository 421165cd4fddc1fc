#!/usr/bin/env bash
# Measures leakslope and its peers on the same snapshot, one after the other in turns, and checks that they agree.
#
#   ./run.sh [SNAPSHOT] [ROUNDS]   the table of time and memory (least of the rounds)
#   ./run.sh --growth [ROUNDS]     leakslope alone on 0.1, 0.25 and 1.1 GB: what a MB costs
#   ./run.sh --check [SNAPSHOT]    node by node: what agrees with whom
#
# Two things are measured of leakslope: the command that users run, `leakslope heap summary`, from the release build that is
# shipped (built for size), which also looks for what piles up and why it is alive; and `ours`, the same library asked for no
# more than its peers give (parsing, dominators, retained sizes, the table by class) and built as they are, for speed.
#
# Needs cargo, node, npm and GNU time (apt-get install -y time). Snapshots are made where none is given.
set -euo pipefail
cd "$(dirname "$0")"
check=no
growth=no
case ${1:-} in
  --check) check=yes; shift ;;
  --growth) growth=yes; shift ;;
esac
scratch=${TMPDIR:-/tmp}/leakslope-heap-peers
mkdir -p "$scratch"
snapshot=${1:-}
rounds=${2:-3}
[ -x /usr/bin/time ] || { echo "GNU time is missing; install it: apt-get install -y time" >&2; exit 1; }
[ $growth = yes ] || [ -d node_modules ] || PUPPETEER_SKIP_DOWNLOAD=1 npm install --ignore-scripts --no-audit --no-fund --silent
[ $growth = yes ] || cargo build --release --quiet
cargo build --profile dist --quiet --locked --manifest-path ../../Cargo.toml
shipped=${CARGO_TARGET_DIR:-../../target}/dist/leakslope
bin=${CARGO_TARGET_DIR:-target}/release
# Makes a snapshot of so many sessions unless it is there, and names it.
make() {
  [ -s "$scratch/$1.heapsnapshot" ] || node --max-old-space-size=16000 make-snapshot.js "$1" "$scratch/$1.heapsnapshot"
  echo "$scratch/$1.heapsnapshot"
}

if [ $growth = yes ]; then
  echo "| snapshot | processor | per MB | memory | per MB |"
  echo "|---|---:|---:|---:|---:|"
  for count in 58000 136000 580000; do
    snapshot=$(make $count)
    : > "$scratch/times"
    for _ in $(seq "${1:-3}"); do
      /usr/bin/time -a -o "$scratch/times" -f '%U %S %M' "$shipped" heap summary --max-memory 8192 "$snapshot" > /dev/null
    done
    awk -v bytes="$(stat -c %s "$snapshot")" '
      { spent = $1 + $2
        if (NR == 1 || spent < least) least = spent
        if (NR == 1 || $3 < memory) memory = $3 }
      END { size = bytes / 1e6
            printf "| %d MB | %.2f s | %.1f ms | %d MB | %.1f MB |\n", size, least, 1000 * least / size,
              memory * 1.024e-3, memory * 1.024e-3 / size }' "$scratch/times"
  done
  exit
fi

if [ -z "$snapshot" ]; then
  if [ $check = yes ]; then size=10000; else size=136000; fi
  snapshot=$(make $size)
fi

node_run() { NODE_OPTIONS=--max-old-space-size=14000 node "$@"; }
run() {
  case $1 in
    leakslope) "$shipped" heap summary --max-memory 8192 "$snapshot" ;;
    ours) "$bin/ours" "$snapshot" ;;
    v8-heap-parser) "$bin/v8-heap-parser" "$snapshot" ;;
    heap-snapshot-toolkit) node_run devtools.mjs "$snapshot" ;;
    memlab) node_run memlab.cjs "$snapshot" ;;
  esac
}
export -f run node_run
export bin shipped snapshot

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

peers="leakslope ours v8-heap-parser heap-snapshot-toolkit memlab"
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
  function of(figure, format, base) { return sprintf(format " (%.1f×, %.1f×)", figure, figure / base["leakslope"], figure / base["ours"]) }
  END {
    print "| reader | time (to leakslope, to ours) | processor | memory |"
    print "|---|---:|---:|---:|"
    for (each in memory) scaled[each] = memory[each] * 1.024e-3
    for (i = 1; i <= count; i++) { name = order[i]
      printf "| %s | %s | %s | %s |\n", name, of(wall[name], "%.2f s", wall), of(spent[name], "%.2f s", spent),
        of(scaled[name], "%d MB", scaled) } }' "$scratch/times"
