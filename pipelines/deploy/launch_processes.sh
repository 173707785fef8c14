#!/usr/bin/env bash
# Runs one process of a training run on several machines, and starts it again when the run fails: for machines without
# Slurm. Start it on every machine with the same command and another HOST, as torchrun is; docs/gpu.md has an example.
#
#   COORDINATOR=node0:8476 HOSTS=4 HOST=0 pipelines/deploy/launch_processes.sh train.pretrain base --data D --workdir W
#
# All processes of a run end within seconds of each other (status 1) when one of them ends, and meet again at the
# coordinator. It stops with the status of a run that succeeded (0), was started wrongly (2) or got SIGTERM.
set -uo pipefail

: "${COORDINATOR:?HOST:PORT of the first machine}" "${HOSTS:?how many processes}" "${HOST:?the number of this one, from 0}"
PYTHON=${PYTHON:-python}
RESTARTS=${RESTARTS:-100}
PAUSE=${PAUSE:-10}

stopping=
child=
stop() {
  stopping=yes
  [ -z "$child" ] || kill -TERM "$child" 2>/dev/null
}
trap stop TERM INT

for restart in $(seq 0 "$RESTARTS"); do
  "$PYTHON" -m "$@" --coordinator "$COORDINATOR" --hosts "$HOSTS" --host "$HOST" &
  child=$!
  wait "$child"
  status=$?
  # A signal ends the first wait before the process has ended.
  while kill -0 "$child" 2>/dev/null; do
    wait "$child"
    status=$?
  done
  child=
  if [ -n "$stopping" ] || [ "$status" = 0 ] || [ "$status" = 2 ]; then
    exit "$status"
  fi
  echo "start $restart of process $HOST ended with status $status; going on from the newest checkpoint" >&2
  # The others may need a moment more, and a machine that went away longer.
  sleep "$PAUSE" &
  child=$!
  wait "$child"
  child=
  [ -z "$stopping" ] || exit "$status"
done
echo "gave up after $RESTARTS restarts" >&2
exit 1
