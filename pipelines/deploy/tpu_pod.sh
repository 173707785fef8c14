#!/usr/bin/env bash
# Trains on a TPU pod: requests it as a queued resource, runs the same command on every host, and requests it again when it
# is preempted. Untested on a real TPU; docs/tpu.md explains it line by line.
#
#   PROJECT=p ZONE=us-east5-a POD=reservoir-base TYPE=v5p-128 RUNTIME=v2-alpha-tpuv5 IMAGE=REGION-docker.pkg.dev/p/r/train:TAG \
#     WORKDIR=gs://bucket/runs/base pipelines/deploy/tpu_pod.sh base --data gs://bucket/shards --batch-size 1024
set -euo pipefail

: "${PROJECT:?the project}" "${ZONE:?the zone}" "${POD:?a name for the queued resource and its TPU}"
: "${TYPE:?the accelerator type, such as v5p-128}" "${RUNTIME:?the TPU software version}" "${IMAGE:?the container}"
: "${WORKDIR:?a folder in a bucket, or one that all hosts share}"
SPOT=${SPOT:-yes}
MOUNT=${MOUNT:-}
TRIES=${TRIES:-100}
PAUSE=${PAUSE:-30}

here=(--project "$PROJECT" --zone "$ZONE")
spot=()
[ "$SPOT" = yes ] && spot=(--spot)

state() {
  gcloud compute tpus queued-resources describe "$POD" "${here[@]}" --format 'value(state.state)' 2>/dev/null || true
}

remove() {
  gcloud compute tpus queued-resources delete "$POD" "${here[@]}" --force --quiet
}

request() {
  gcloud compute tpus queued-resources create "$POD" "${here[@]}" --node-id "$POD" \
    --accelerator-type "$TYPE" --runtime-version "$RUNTIME" "${spot[@]}"
}

on() {
  gcloud compute tpus tpu-vm ssh "$POD" "${here[@]}" --worker "$1" --command "$2"
}

arguments=$(printf '%q ' "$@" --workdir "$WORKDIR" --coordinator auto)
if [ "${WORKDIR#gs://}" != "$WORKDIR" ]; then
  prepare=true
  volume=
  finished="gcloud storage ls $WORKDIR/export/ckpt_*"
else
  prepare="sudo mkdir -p $WORKDIR"
  volume="-v $WORKDIR:$WORKDIR"
  finished="ls $WORKDIR/export/ckpt_*"
  if [ -n "$MOUNT" ]; then
    # HOST:/SHARE of a Filestore or another NFS server, mounted under the same path on every host.
    prepare="$prepare && (mountpoint -q $WORKDIR || (sudo apt-get -qq install -y nfs-common && sudo mount $MOUNT $WORKDIR))"
  fi
fi
run="{ $prepare && sudo gcloud auth configure-docker ${IMAGE%%/*} --quiet; } || exit 1
  sudo docker rm -f reservoir >/dev/null 2>&1
  sudo docker run --name reservoir --rm --privileged --net host --stop-timeout 600 \
    $volume -e WANDB_PROJECT -e WANDB_API_KEY $IMAGE $arguments"

for try in $(seq "$TRIES"); do
  case "$(state)" in
    ACTIVE) ;;
    "") request ;;
    FAILED | SUSPENDED | SUSPENDING) remove && request ;;
  esac
  until [ "$(state)" = ACTIVE ]; do
    case "$(state)" in FAILED | SUSPENDED) echo "the request ended as $(state); requesting again" >&2 && continue 2 ;; esac
    sleep "$PAUSE"
  done
  # Every start resumes from the newest valid checkpoint in WORKDIR, so a lost pod costs at most the steps since then.
  # A run that was stopped by a signal also exits with 0, but only a finished run has exported its weights.
  if on all "$run" && on 0 "$finished"; then
    remove
    exit 0
  fi
  echo "start $try ended; resuming from the newest checkpoint" >&2
  sleep "$PAUSE"
done
echo "gave up after $TRIES starts" >&2
exit 1
