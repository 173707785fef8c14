"""How the images of training examples are augmented: fields that every reader configuration shares."""

from __future__ import annotations

from dataclasses import dataclass

from shards.sizes import Scaling


@dataclass(frozen=True, kw_only=True)
class ImageOptions:
    """Random zoom and rotation of images; applied in training only."""

    random_scale: bool = True
    """Zoom images at random in training."""
    scale_min: float = 1.0
    """Least zoom of images."""
    scale_max: float = 1.1
    """Largest zoom of images."""
    shrink_both_sides: bool = True
    """Zoom as drawn; otherwise at most by the larger of grid / image over both sides."""
    turn_portraits: bool = True
    """Rotate portrait images by 90 degrees."""

    def zoom(self, training: bool) -> Scaling | None:
        """Return the random zoom of images; None in evaluation and without `random_scale`."""
        if not (training and self.random_scale):
            return None
        return Scaling(self.scale_min, self.scale_max, self.shrink_both_sides)
