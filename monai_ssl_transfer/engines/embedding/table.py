"""Embeddings as a Parquet table: written as they come, whole or not at all; read back with ids and card."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from ignite.engine import Engine, Events

from monai_ssl_transfer.data.folder_store import DUPLICATE, IGNORED, KEPT, REFUSED, StoredImages, write_refused
from monai_ssl_transfer.engines.embedding.encoder_settings import EncoderSettings
from monai_ssl_transfer.engines.embedding.rows import ImageRows
from monai_ssl_transfer.engines.embedding.volume_means import VolumeMeans
from monai_ssl_transfer.engines.records.versions import versions
from monai_ssl_transfer.errors import DataError, TrainingError
from monai_ssl_transfer.weights import EncoderCard

logger = logging.getLogger(__name__)

TABLE_NAME, REFUSED_NAME = "embeddings.parquet", "embeddings_refused.csv"
COLUMN = "embedding"
FACTS_KEY, CARD_KEY = b"monai_ssl_transfer", b"card"
LEVELS = ("slice", "volume")
ROW_GROUP = 4096
"""Rows that are kept in memory before they are written."""


class Embeddings(NamedTuple):
    """What `read_embeddings` gives.

    Args:
        ids: the table without the embeddings, N rows.
        vectors: (N, D) float32.
        card: of the encoder; None where it had none.
        facts: channels, image_size, level, source, content hash, versions.
    """

    ids: pa.Table
    vectors: np.ndarray
    card: EncoderCard | None
    facts: dict[str, Any]


def read_embeddings(file: str | Path) -> Embeddings:
    """Read a table of embeddings.

    Args:
        file: ``embeddings.parquet``, or the folder with it.

    Raises:
        DataError: the file is not there, damaged, or another table.
    """
    path = Path(file) / TABLE_NAME if Path(file).is_dir() else Path(file)
    try:
        with pq.ParquetFile(path) as table:
            schema = table.schema_arrow
            if COLUMN not in schema.names or FACTS_KEY not in (schema.metadata or {}):
                raise DataError(f"{path} is no table of embeddings: give the {TABLE_NAME} of an inference.")
            vectors = np.empty((table.metadata.num_rows, schema.field(COLUMN).type.list_size), np.float32)
            place = 0
            for batch in table.iter_batches(ROW_GROUP, columns=[COLUMN]):
                vectors[place : place + len(batch)] = batch.column(0).flatten().to_numpy().reshape(len(batch), -1)
                place += len(batch)
            ids = table.read([name for name in schema.names if name != COLUMN])
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} cannot be read ({error}): give the {TABLE_NAME} of an inference.") from error
    card = schema.metadata.get(CARD_KEY)
    return Embeddings(
        ids,
        vectors,
        None if card is None else EncoderCard.from_json(card.decode(), str(path)),
        json.loads(schema.metadata[FACTS_KEY]),
    )


class EmbeddingTable:
    """Writes what an evaluator's network gives to ``embeddings.parquet``, in the order of the store.

    The table has a temporary name until it is complete, so a killed run leaves none. Files that were not used stand in
    ``embeddings_refused.csv`` beside it.

    Args:
        images: the store that is read, and its folder if it was made from one.
        folder: for the table; made if it does not exist.
        settings: of the encoder.
        channels: that the encoder gets.
        image_size: side in pixels to which images are resized.
        level: "slice" for a row per slice or frame, "volume" for the mean of each CT series.
        every: of a video, each so-many-th frame was taken.

    Raises:
        TrainingError: unknown level, or volumes of photographs.
    """

    def __init__(
        self,
        images: StoredImages,
        folder: str | Path,
        settings: EncoderSettings,
        channels: str,
        image_size: int,
        level: str = "slice",
        every: int | None = None,
    ) -> None:
        if level not in LEVELS or (level == "volume" and images.store.pixels == "rgb"):
            fitting = "slice" if images.store.pixels == "rgb" else " or ".join(LEVELS)
            raise TrainingError(f"level {level!r} does not go with these images: give {fitting}.")
        self.path = Path(folder) / TABLE_NAME
        self.images = images
        rows = ImageRows(images, 25 if every is None else every)
        self._rows: ImageRows | VolumeMeans = VolumeMeans(rows) if level == "volume" else rows
        self._card = settings.card
        self._facts = {
            "encoder_weights": Path(settings.file).name,
            "channels": channels,
            "image_size": image_size,
            "level": level,
            "source": "store" if images.folder is None else "folder",
            "content_hash": content_hash(images),
            "versions": versions(),
        }
        self._partial = self.path.with_name(f".{TABLE_NAME}.partial")
        self._writer: pq.ParquetWriter | None = None
        self._waiting: list[pa.Table] = []
        self._schema: pa.Schema | None = None
        self._seen = self._written = self._width = 0
        self._counts: Counter[str] = Counter()

    def attach(self, engine: Engine) -> None:
        """Register on the evaluator."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.write)
        engine.add_event_handler(Events.COMPLETED, self.close)

    def write(self, engine: Engine) -> None:
        """Take a batch; at most `ROW_GROUP` rows and a batch are kept in memory."""
        state: Any = engine.state
        vectors = state.output["pred"].detach().float().cpu().numpy()
        numbers = np.asarray(state.batch["index"])
        if not np.isfinite(vectors).all():
            raise DataError(
                f"{self.path} was not written because the embedding of image {numbers[0]} or of one of the "
                f"{len(numbers) - 1} after it is not finite: the encoder's weights or the image are damaged."
            )
        self._seen += len(numbers)
        columns, vectors = self._rows.add(numbers, vectors)
        schema = self._schema_of(vectors.shape[1])
        embedding = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
        self._waiting.append(pa.table({**columns, COLUMN: embedding}, schema=schema))
        if sum(map(len, self._waiting)) >= ROW_GROUP:
            self._flush()

    def _schema_of(self, width: int) -> pa.Schema:
        if self._schema is None:
            self._width = width
            facts = {FACTS_KEY: json.dumps(self._facts).encode()}
            if self._card is not None:
                facts[CARD_KEY] = self._card.to_json().encode()
            field = pa.field(COLUMN, pa.list_(pa.float32(), width), nullable=False)
            self._schema = pa.schema([*self._rows.fields, field], metadata=facts)
        return self._schema

    def _flush(self) -> None:
        table = pa.concat_tables(self._waiting)
        self._waiting = []
        if self._writer is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            names = [field.name for field in self._rows.fields]
            # Embeddings hardly shrink and have no repetitions.
            self._writer = pq.ParquetWriter(
                self._partial, table.schema, compression=dict.fromkeys(names, "zstd"), use_dictionary=names
            )
        self._writer.write_table(table, row_group_size=max(len(table), 1))
        self._written += len(table)

    def close(self, _: Engine) -> None:
        """Complete the table and give it its name.

        Raises:
            DataError: not every image went through the evaluator.
        """
        if self._seen != len(self.images.store):
            raise DataError(
                f"{self.path} was not written because {self._seen} of {len(self.images.store)} images were embedded: "
                "let the evaluator run over the whole data set."
            )
        if self._waiting:
            self._flush()
        if self._writer is not None:
            self._writer.close()
        with self._partial.open("rb") as file:
            os.fsync(file.fileno())
        self._counts = write_refused(self.path.with_name(REFUSED_NAME), self.images.outcomes())
        self._partial.replace(self.path)

    def conclude(self) -> None:
        """Say what was written, as the last thing of the run."""
        logger.info("%s: %d rows of %d numbers%s", self.path, self._written, self._width, self._about_files())

    def _about_files(self) -> str:
        if self.images.folder is None:
            return f" for the {len(self.images.store)} images of {self.images.store.path}"
        told = ", ".join(f"{self._counts[status]} {status}" for status in (KEPT, DUPLICATE, REFUSED, IGNORED))
        listed = self.path.with_name(REFUSED_NAME)
        where = f", listed in {listed}" if listed.exists() else ""
        return f"; {self._counts.total()} files in {self.images.folder}: {told}{where}"


def content_hash(images: StoredImages) -> str:
    """What was embedded: the hash of a store, or one of the pixels that were read from a folder, 32 characters.

    The hash of a temporary store would be another one in every run, as its salt is.

    Args:
        images: the store that is read, and its folder if it was made from one.
    """
    if images.folder is None:
        return images.store.content_hash
    digest = hashlib.blake2b(digest_size=16)
    for name in ("rows", "columns", "crc"):
        digest.update(np.ascontiguousarray(images.store.index[name]).tobytes())
    return digest.hexdigest()
