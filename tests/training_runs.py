"""What tests read of the work folders of training runs."""

from train.metrics.formatting import MetricsLog


def losses(workdir):
    """The loss of every logged step."""
    return {line["step"]: line["loss"] for line in MetricsLog(str(workdir / "metrics.jsonl")).lines()}
