"""Which image to label next, as strategies of MONAI Label: spread by embeddings, uncertain, or more like this one."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from monailabel.interfaces.datastore import Datastore, DefaultLabelTag
from monailabel.interfaces.tasks.strategy import Strategy

from monai_ssl_transfer.errors import DataError
from monai_ssl_transfer.label.embeddings import DatastoreEmbeddings
from monai_ssl_transfer.label.scoring import SCORE_SUFFIX, score_key
from monai_ssl_transfer.label.selection import (
    dense_and_uncertain,
    density,
    similar_first,
    spread,
    typical_first,
    unit,
)

SECONDS_SERVED = 24 * 60 * 60
"""For so long an image that somebody was given counts as being labelled (as in MONAI Label's own strategies)."""


def make_strategies(embeddings: DatastoreEmbeddings, score_key: str) -> dict[str, Strategy]:
    """The strategies of the app by name.

    Args:
        embeddings: of the app's datastore.
        score_key: under which scores of uncertainty are in the datastore, unless a request names another; see
            `scoring.score_key`.
    """
    return {
        "ssl_diverse": DiverseStrategy(embeddings),
        "ssl_uncertain": UncertainStrategy(embeddings, score_key),
        "ssl_similar": SimilarStrategy(embeddings),
    }


class EmbeddingStrategy(Strategy):
    """What the strategies share: which images may be chosen, and by which vectors.

    An image that anybody was given in the last day is not given again while there are others, so that two annotators
    get different images and one that was skipped does not come back at once.

    Args:
        description: for the user interface.
        embeddings: of the datastore.
    """

    def __init__(self, description: str, embeddings: DatastoreEmbeddings) -> None:
        super().__init__(description)
        self.embeddings = embeddings

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any] | None:
        """Choose an image.

        Args:
            request: "strategy" and the parameters of the strategy; "label_tag" and "labels" as in MONAI Label.
            datastore: whose images are chosen from.

        Returns:
            "id" and why; None where everything is labelled.

        Raises:
            DataError: no image can be chosen (yet).
        """
        self.embeddings.update()
        unlabelled = sorted(datastore.get_unlabeled_images(request.get("label_tag"), request.get("labels")))
        if not unlabelled:
            return None
        known = self.embeddings.embedded(sorted(datastore.list_images()))
        rows = {one: row for row, one in enumerate(known)}
        served = {one: _served(datastore.get_image_info(one)) for one in unlabelled if one in rows}
        if not served:
            raise DataError(self.embeddings.why_none())
        recent = time.time() - SECONDS_SERVED
        candidates = [one for one, when in served.items() if when < recent]
        if not candidates:  # all were given to somebody: the one that waits longest
            oldest = min(served.values())
            candidates = [one for one, when in served.items() if when == oldest]
        vectors = unit(self.embeddings.vectors(known))
        busy = set(unlabelled).difference(candidates) & rows.keys()
        chosen = self.choose(request, datastore, _Pool(vectors, rows, candidates, unlabelled, busy))
        return chosen | {"embedded": len(known), "not_embedded": len(datastore.list_images()) - len(known)}

    def choose(self, request: Mapping[str, Any], datastore: Datastore, pool: _Pool) -> dict[str, Any]:
        """The image and why, of a pool that has a candidate."""
        raise NotImplementedError


class _Pool:
    """What can be chosen from.

    Args:
        vectors: (N, D) of all embedded images, see `unit`.
        rows: row by image id.
        candidates: ids that may be chosen.
        unlabelled: ids without label, embedded or not.
        busy: embedded ids that somebody was given lately.
    """

    def __init__(
        self,
        vectors: np.ndarray,
        rows: dict[str, int],
        candidates: list[str],
        unlabelled: list[str],
        busy: set[str],
    ) -> None:
        self.vectors, self.rows, self.candidates = vectors, rows, candidates
        self.names = list(rows)
        labelled = rows.keys() - set(unlabelled)
        self.covered = sorted(rows[one] for one in labelled | busy)

    def rows_of(self, image_ids: Sequence[str]) -> list[int]:
        """Rows of the vectors of some images."""
        return [self.rows[one] for one in image_ids]


class DiverseStrategy(EmbeddingStrategy):
    """The most typical image of the largest group of images that nobody has labelled in; needs no model.

    Request: "method": "typiclust" (default) or "coreset"; "seed": of TypiClust's k-means.

    Args:
        embeddings: of the datastore.
    """

    def __init__(self, embeddings: DatastoreEmbeddings) -> None:
        super().__init__("First images: typical of what is not labelled yet (TypiClust, or coreset)", embeddings)

    def choose(self, request: Mapping[str, Any], datastore: Datastore, pool: _Pool) -> dict[str, Any]:
        """See `typical_first` and `spread`."""
        method = request.get("method") or "typiclust"
        rows = pool.rows_of(pool.candidates)
        if method == "typiclust":
            found = typical_first(pool.vectors, pool.covered, 1, _whole_number(request.get("seed", 0)), rows)
        elif method == "coreset":
            found = spread(pool.vectors, pool.covered, 1, rows)
        else:
            raise DataError(f"ssl_diverse knows no method '{method}': give typiclust or coreset.")
        return {"id": pool.names[found[0]], "method": method}


class UncertainStrategy(EmbeddingStrategy):
    """The image with the largest product of the model's uncertainty and the density of images around it.

    Request: "model": the bundle whose scores count; "beta": weight of the density, 0 leaves it out.

    Args:
        embeddings: of the datastore.
        score_key: of the scores in the datastore.
    """

    def __init__(self, embeddings: DatastoreEmbeddings, score_key: str) -> None:
        super().__init__("Once there is a model: uncertain, and like many others", embeddings)
        self.score_key = score_key

    def choose(self, request: Mapping[str, Any], datastore: Datastore, pool: _Pool) -> dict[str, Any]:
        """See `dense_and_uncertain`; images that were not scored yet are left for later."""
        infos = {one: datastore.get_image_info(one) for one in pool.candidates}
        key = self._key(request.get("model"), infos)
        scores = {one: info.get(key) for one, info in infos.items()}
        scored = [one for one in pool.candidates if scores[one] is not None]
        if not scored:
            raise DataError(
                f"no image has a score of uncertainty ({key}) yet: once a model is trained, scoring begins with this "
                "request (GET /scoring/ shows it); ask again then, or begin with ssl_diverse."
            )
        beta = _number(request.get("beta", 1.0))
        crowding = density(pool.vectors)[pool.rows_of(scored)]
        uncertainty = np.array([float(scores[one]) for one in scored])  # type: ignore[arg-type]
        best = int(np.argmax(dense_and_uncertain(uncertainty, crowding, beta)))
        return {
            "id": scored[best],
            "uncertainty": float(uncertainty[best]),
            "density": float(crowding[best]),
            "not_scored": len(pool.candidates) - len(scored),
        }

    def _key(self, model: object, infos: Mapping[str, Mapping[str, Any]]) -> str:
        """Key of the scores to go by; without a model named, of the only model there are scores of."""
        if model:
            return score_key(str(model))
        found = sorted({key for info in infos.values() for key in info if key.endswith(SCORE_SUFFIX)})
        if self.score_key in found or not found:
            return self.score_key
        if len(found) > 1:
            models = ", ".join(key.removesuffix(SCORE_SUFFIX) for key in found)
            raise DataError(f"there are scores of several models: name one of {models} with the parameter model.")
        return found[0]


class SimilarStrategy(EmbeddingStrategy):
    """The image most like a given one, or like the one that was labelled last.

    Request: "image": an id.

    Args:
        embeddings: of the datastore.
    """

    def __init__(self, embeddings: DatastoreEmbeddings) -> None:
        super().__init__("More like this one: the given image, or the one labelled last", embeddings)

    def choose(self, request: Mapping[str, Any], datastore: Datastore, pool: _Pool) -> dict[str, Any]:
        """See `similar_first`."""
        like = str(request.get("image") or _labelled_last(datastore))
        if like not in pool.rows:
            self.embeddings.vectors([like] if like in datastore.list_images() else [])  # says why it has no vector
            raise DataError(f"there is no image '{like}' in the datastore: give the id of one that is there.")
        candidates = [one for one in pool.candidates if one != like]
        if not candidates:
            raise DataError(f"there is no unlabelled image besides {like} itself: add images to the datastore.")
        found, similarity = similar_first(pool.vectors, [pool.rows[like]], pool.rows_of(candidates))
        return {"id": pool.names[found[0]], "like": like, "similarity": float(similarity[0])}


def _served(info: Mapping[str, Any]) -> float:
    """When anybody was given an image last, by any strategy; 0: never."""
    return max((float(one.get("ts", 0)) for one in info.get("strategy", {}).values()), default=0.0)


def _labelled_last(datastore: Datastore) -> str:
    labelled = sorted(datastore.get_labeled_images())
    if not labelled:
        raise DataError("nothing is labelled yet: name an image to look like with the parameter image.")
    tag = DefaultLabelTag.FINAL
    when = [
        float(datastore.get_label_info(datastore.get_label_by_image_id(one, tag), tag).get("ts", 0)) for one in labelled
    ]
    return labelled[int(np.argmax(when))]


def _number(value: object) -> float:
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise DataError(f"beta is {value!r}: give a number.") from error


def _whole_number(value: object) -> int:
    try:
        found = int(value)  # type: ignore[call-overload]
    except (TypeError, ValueError) as error:
        raise DataError(f"seed is {value!r}: give a whole number from 0 on.") from error
    if found < 0:
        raise DataError(f"seed is {value!r}: give a whole number from 0 on.")
    return int(found)
