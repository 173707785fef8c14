"""Read a file of pretraining records with TensorFlow and print their features as JSON."""

import json
import sys

import tensorflow as tf

one = lambda kind, default=None: tf.io.FixedLenFeature((), kind, default)
any_ = lambda kind: tf.io.VarLenFeature(kind)
features = {}
for i in range(int(sys.argv[2])):
    features |= {
        f"c{i:02d}/{k}": v
        for k, v in {
            "image/encoded": one(tf.string, ""),
            "image/format": one(tf.string, "jpeg"),
            "image/key/sha256": one(tf.string, ""),
            "image/height": one(tf.int64, 1),
            "image/width": one(tf.int64, 1),
            "spectrogram/encoded": one(tf.string, ""),
            "spectrogram/format": one(tf.string, "jpeg"),
            "spectrogram/key/sha256": one(tf.string, ""),
            "spectrogram/height": one(tf.int64, 1),
            "spectrogram/width": one(tf.int64, 1),
            "spectrogram/magic_number": one(tf.float32, 1.0),
            "youtube_id": one(tf.string, ""),
            "video_src_index": one(tf.int64, 1),
            "meta": one(tf.string, ""),
            "title": any_(tf.int64),
            "tags": any_(tf.int64),
            "description": any_(tf.int64),
            "playback_speed": any_(tf.int64),
            "start_time": one(tf.float32, 1.0),
            "end_time": one(tf.float32, 1.0),
            "tok_ids": any_(tf.int64),
            "tok_start_times": any_(tf.float32),
            "tok_end_times": any_(tf.float32),
            "random_text": any_(tf.int64),
        }.items()
    }
rows = []
for raw in tf.data.TFRecordDataset(sys.argv[1]):
    parsed = tf.io.parse_single_example(raw, features)
    row = {}
    for name, value in parsed.items():
        if isinstance(value, tf.sparse.SparseTensor):
            value = value.values
        value = value.numpy()
        row[name] = value.hex() if isinstance(value, bytes) else value.tolist()
    for i in range(int(sys.argv[2])):
        shape = tf.io.decode_jpeg(parsed[f"c{i:02d}/image/encoded"]).shape
        assert shape == (row[f"c{i:02d}/image/height"], row[f"c{i:02d}/image/width"], 3), shape
    rows.append(row)
print(json.dumps(rows))
