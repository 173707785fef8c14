"""The type of Beam collections in annotations."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any, TypeAlias

    # Beam's operators are annotated to return PValue, which lacks the outputs of the transform that was applied.
    PCollection: TypeAlias = Any
else:
    from apache_beam.pvalue import PCollection

__all__ = ["PCollection"]
