"""Build protobuf message classes from their schema at run time, and the class of `tf.train.Example`.

The schemas live in pools of their own, so TensorFlow may register messages of the same names in the same process.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format


def message_class(schema: str, name: str) -> Any:
    """Return the class of the message `name` of a schema, a `FileDescriptorProto` in protobuf's text format.

    The type is `Any` because the fields exist only at run time.
    """
    pool = descriptor_pool.DescriptorPool()
    pool.Add(text_format.Parse(schema, descriptor_pb2.FileDescriptorProto()))
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(name))


# Two declarations differ from TensorFlow's and have the same bytes. Floats are fixed32, because a Python float would
# turn a signalling NaN into a quiet one. The map of features is a list of entries, because the order in which protobuf
# writes a map is its own and may change; the oneof around the key makes it write an empty name, as in a map.
Example = message_class(
    """
    name: "example.proto" package: "tensorflow" syntax: "proto3"
    message_type {
      name: "BytesList"
      field { name: "value" number: 1 label: LABEL_REPEATED type: TYPE_BYTES }
    }
    message_type {
      name: "FloatList"
      field { name: "value" number: 1 label: LABEL_REPEATED type: TYPE_FIXED32 }
    }
    message_type {
      name: "Int64List"
      field { name: "value" number: 1 label: LABEL_REPEATED type: TYPE_INT64 }
    }
    message_type {
      name: "Feature"
      oneof_decl { name: "kind" }
      field { name: "bytes_list" number: 1 type: TYPE_MESSAGE type_name: ".tensorflow.BytesList" oneof_index: 0 }
      field { name: "float_list" number: 2 type: TYPE_MESSAGE type_name: ".tensorflow.FloatList" oneof_index: 0 }
      field { name: "int64_list" number: 3 type: TYPE_MESSAGE type_name: ".tensorflow.Int64List" oneof_index: 0 }
    }
    message_type {
      name: "FeatureEntry"
      oneof_decl { name: "_key" }
      field { name: "key" number: 1 type: TYPE_STRING oneof_index: 0 }
      field { name: "value" number: 2 type: TYPE_MESSAGE type_name: ".tensorflow.Feature" }
    }
    message_type {
      name: "Features"
      field { name: "feature" number: 1 label: LABEL_REPEATED type: TYPE_MESSAGE type_name: ".tensorflow.FeatureEntry" }
    }
    message_type {
      name: "Example"
      field { name: "features" number: 1 type: TYPE_MESSAGE type_name: ".tensorflow.Features" }
    }
    """,
    "tensorflow.Example",
)
"""The class of a record: `features.feature` lists entries of a `key` and a `value`, which has one of three lists."""
