"""A model's reference: its predictions of held-out rows, as windows are compared with. Knows Parquet, no tests."""

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fashion.images.statistics import STATISTICS
from fashion.model.package import REFERENCE, DamagedPackage, Package
from fashion.model.predictor import Predictions


@dataclass(frozen=True)
class Reference:
    """Predictions of N rows that the model was not trained on, in the order of the validation split."""

    labels: NDArray[np.int64]
    """(N,) true labels."""
    predictions: Predictions
    """Of the same rows."""

    def to_parquet(self) -> bytes:
        """Parquet with the columns label, predicted, confidence, probabilities, embedding, and each image statistic."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        rows = self.predictions
        table = pa.table(
            {
                "label": self.labels,
                "predicted": rows.labels,
                "confidence": rows.confidences,
                "probabilities": _lists(rows.probabilities),
                "embedding": _lists(rows.embeddings),
                **{name: rows.statistics[:, column] for column, name in enumerate(STATISTICS)},
            }
        )
        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression="zstd")
        return buffer.getvalue()

    @classmethod
    def from_parquet(cls, content: bytes) -> "Reference":
        """Read what `to_parquet` wrote."""
        import pyarrow.parquet as pq

        table = pq.read_table(io.BytesIO(content))
        column = {name: table[name].combine_chunks() for name in table.column_names}
        count = table.num_rows
        predictions = Predictions(
            labels=column["predicted"].to_numpy(),
            confidences=column["confidence"].to_numpy(),
            probabilities=column["probabilities"].flatten().to_numpy().reshape(count, -1),
            statistics=np.stack([column[name].to_numpy() for name in STATISTICS], axis=1),
            embeddings=column["embedding"].flatten().to_numpy().reshape(count, -1),
        )
        return cls(column["label"].to_numpy(), predictions)

    @classmethod
    def of(cls, package: Package) -> "Reference":
        """Read the reference of a package that was written or read.

        Raises:
            DamagedPackage: its file is not what `to_parquet` writes.
            ValueError: the package is in no folder.
        """
        if package.folder is None:
            raise ValueError("a package must be in a folder: write or read it first")
        try:
            return cls.from_parquet((package.folder / REFERENCE).read_bytes())
        except (KeyError, OSError, ValueError) as error:
            raise DamagedPackage(f"{package.folder / REFERENCE} cannot be read: {error}") from None


def _lists(rows: NDArray[Any]) -> Any:
    import pyarrow as pa

    return pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), rows.shape[1])
