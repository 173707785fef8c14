"""The part of TensorBoard's event message that scalars need, as a protobuf message class."""

from __future__ import annotations

from shards.records.messages import message_class

SESSION_START = 1
"""The status of a session log that marks the start of a run."""

Event = message_class(
    """
    name: "event.proto" package: "tensorboard" syntax: "proto3"
    message_type {
      name: "Value"
      oneof_decl { name: "value" }
      field { name: "tag" number: 1 type: TYPE_STRING }
      field { name: "simple_value" number: 2 type: TYPE_FLOAT oneof_index: 0 }
    }
    message_type {
      name: "Summary"
      field { name: "value" number: 1 label: LABEL_REPEATED type: TYPE_MESSAGE type_name: ".tensorboard.Value" }
    }
    message_type {
      name: "SessionLog"
      field { name: "status" number: 1 type: TYPE_INT32 }
    }
    message_type {
      name: "Event"
      oneof_decl { name: "what" }
      field { name: "wall_time" number: 1 type: TYPE_DOUBLE }
      field { name: "step" number: 2 type: TYPE_INT64 }
      field { name: "file_version" number: 3 type: TYPE_STRING oneof_index: 0 }
      field { name: "summary" number: 5 type: TYPE_MESSAGE type_name: ".tensorboard.Summary" oneof_index: 0 }
      field { name: "session_log" number: 7 type: TYPE_MESSAGE type_name: ".tensorboard.SessionLog" oneof_index: 0 }
    }
    """,
    "tensorboard.Event",
)
"""The class of an event: `wall_time`, `step`, and one of `file_version`, `summary` and `session_log`."""
