#!/usr/bin/env bash
# Runs one process of a training run on several machines without Slurm, and restarts it when the run fails. Like torchrun,
# start it on every machine with the same command and another HOST; docs/gpu.md has an example.
#
#   COORDINATOR=node0:8476 HOSTS=4 HOST=0 pipelines/deploy/launch_processes.sh train.pretrain base --data D --workdir W
#
# When one process of a run ends, all others exit within seconds (status 1), and reconnect to the coordinator when they are
# restarted. This script exits with the status of a run that succeeded (0), had a usage error (2) or received SIGTERM.
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
  # A signal interrupts the first wait before the process has exited.
  while kill -0 "$child" 2>/dev/null; do
    wait "$child"
    status=$?
  done
  child=
  if [ -n "$stopping" ] || [ "$status" = 0 ] || [ "$status" = 2 ]; then
    exit "$status"
  fi
  echo "start $restart of process $HOST ended with status $status; resuming from the newest checkpoint" >&2
  # Other processes may take longer to exit, and a failed machine longer to return.
  sleep "$PAUSE" &
  child=$!
  wait "$child"
  child=
  [ -z "$stopping" ] || exit "$status"
done
echo "gave up after $RESTARTS restarts" >&2
exit 1
