"""How many floating-point operations the network takes, by arithmetic on its shapes.

Counts matrix products only, two operations per multiply and add, as model FLOP utilisation is reported.
"""

from __future__ import annotations

from model.config import ReserveConfig


def stack_flops(config: ReserveConfig, layers: int, tokens: int) -> int:
    """Return the operations of one forward pass of a stack over one sequence."""
    dense = 2 * tokens * 12 * config.hidden_size**2
    attention = 2 * 2 * tokens**2 * config.hidden_size
    return layers * (dense + attention)


def pretraining_flops(config: ReserveConfig) -> dict[str, int]:
    """Return the operations of one example's forward pass, by part; a training step takes three times their sum.

    The losses over the batch are not counted; they depend on its size.
    """
    hidden = config.hidden_size
    dense = 2 * hidden**2
    window = config.pooling_ratio**2
    vision = stack_flops(config, config.vision_layers, config.patches + 1) + dense
    vision += 2 * config.patches * config.patch_values * hidden
    vision += _pool(config, config.tokens_per_image, window)

    steps = config.audio_frames // config.audio_patch_size
    audio = stack_flops(config, config.audio_layers, steps + 1) + dense
    audio += 2 * config.audio_frames * (config.mel_bands + 1) * hidden
    audio += _pool(config, config.audio_tokens, steps // config.audio_tokens)

    span = stack_flops(config, config.span_layers, config.span_length + 1) + dense
    grouped = config.groups * (config.audio2text_sequences + config.text2audio_sequences)
    rows = grouped + 1 + config.random_text_sequences
    joint = rows * stack_flops(config, config.joint_layers, config.sequence_length)

    targets = config.targets * config.text2audio_sequences
    outputs = config.segments + targets + config.spans_to_include
    matching = config.sequence_length * config.segments
    masked = config.text_length * config.groups
    matching += masked * config.text2audio_sequences * (config.audio_spans + config.spans_per_example)
    matching += masked * config.audio2text_sequences * config.spans_per_example
    matching += config.sequence_length * config.random_text_sequences * config.spans_per_example
    return {
        "vision": config.segments * vision,
        "audio": config.audio_spans * audio,
        "span": config.spans_to_include * span,
        "joint": joint,
        "head": outputs * dense + 2 * matching * hidden,
    }


def _pool(config: ReserveConfig, windows: int, size: int) -> int:
    """Attention pooling: keys and values of every token, one query and one output of each window."""
    return windows * (2 * size + 2) * 2 * config.hidden_size**2
