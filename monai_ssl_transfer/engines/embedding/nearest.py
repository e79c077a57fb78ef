"""Exact nearest neighbours among many vectors, in bounded memory: the one kNN of pretraining and of the probes."""

from __future__ import annotations

import numpy
import torch
from torch import Tensor
from torch.nn import functional

from monai_ssl_transfer.errors import DataError

_TILE = 2048  # rows of the bank, and
_BLOCK = 1024  # queries, whose similarities are held at once: 8 MiB, which a processor's cache holds
_RUN = 64  # neighbouring similarities that are judged by their largest first
_RARE = 1000  # where fewer than one in so many is worth a look


def nearest(
    bank: Tensor,
    queries: Tensor,
    count: int,
    bank_groups: Tensor | None = None,
    query_groups: Tensor | None = None,
    cosine: bool = True,
) -> tuple[Tensor, Tensor]:
    """The most similar rows of a bank for every query, exactly, never more than 1,024 x 2,048 similarities at once.

    The bank is read once, tile by tile (it may be a memory-mapped file), and is never copied as a whole. On a
    processor a tile's similarities are compared with what each query has found so far, and only the few that are
    larger are sorted; the matrix product is then nearly all of the work.

    Args:
        bank: (N, D) float32.
        queries: (Q, D) float32, on the same device.
        count: how many neighbours; fewer are returned where the bank is smaller.
        bank_groups: (N,) int64; a row of the query's own group is no neighbour. None: all rows may be.
        query_groups: (Q,) int64.
        cosine: by cosine similarity; False: by the inner product as it is.

    Returns:
        (Q, K) similarities, falling, and (Q, K) int64 rows of the bank. A similarity of -inf is no neighbour: the
        query's own group leaves fewer than K. Which of exactly equal rows comes first is not defined.

    Raises:
        DataError: the bank is empty, or lengths disagree.
    """
    _check(bank, queries, count, bank_groups, query_groups)
    count = min(count, len(bank))
    queries = functional.normalize(queries, dim=1) if cosine else queries
    parts = queries.tensor_split(-(-len(queries) // _BLOCK))
    owners = [None] * len(parts) if query_groups is None else query_groups.tensor_split(len(parts))
    found = [_Neighbours(len(part), count, owner) for part, owner in zip(parts, owners, strict=True)]
    scores = torch.empty(min(_BLOCK, len(queries)) * _TILE, device=queries.device)
    room = torch.empty(min(_TILE, len(bank)), bank.shape[1], device=queries.device)
    for start in range(0, len(bank), _TILE):
        tile = bank[start : start + _TILE]
        if cosine:
            lengths = torch.linalg.vector_norm(tile, dim=1, keepdim=True).clamp_(min=1e-12)
            tile = torch.div(tile, lengths, out=room[: len(tile)])
        groups = None if bank_groups is None else bank_groups[start : start + _TILE]
        for part, neighbours in zip(parts, found, strict=True):
            similarity = scores[: len(part) * len(tile)].view(len(part), len(tile))
            neighbours.add(_product(part, tile, similarity), groups, start)
    results = [one.result() for one in found]
    return torch.cat([best for best, _ in results]), torch.cat([place for _, place in results])


def weighted_vote(similarity: Tensor, targets: Tensor, classes: int, temperature: float) -> Tensor:
    """Neighbours vote with the weight exp(similarity / temperature) (Wu et al. 2018, section 3.4), as shares.

    Args:
        similarity: (Q, K) to the neighbours; -inf where there is none.
        targets: (Q, K) int64 classes of the neighbours, or (Q, K, C) float32 of 0 and 1.
        classes: number of classes C.
        temperature: the smaller, the more the nearest count.

    Returns:
        (Q, C) share of the votes for each class; a row adds up to 1 for classes.

    Raises:
        DataError: a query has no neighbour.
    """
    if bool((similarity.amax(dim=1) == -torch.inf).any()):
        raise DataError("A case has no neighbour of another patient: a vote needs cases of two patients or more.")
    weight = torch.softmax(similarity / temperature, dim=1)
    if targets.ndim == 3:
        return torch.einsum("qk,qkc->qc", weight, targets)
    return torch.zeros(len(weight), classes, device=weight.device).scatter_add_(1, targets, weight)


def _product(queries: Tensor, tile: Tensor, out: Tensor) -> Tensor:
    """Inner products (queries, rows) into ``out``; by numpy's OpenBLAS on a processor: `benchmarks/knn.py` says why."""
    if queries.device.type != "cpu":
        return torch.mm(queries, tile.T, out=out)
    numpy.matmul(queries.numpy(), tile.numpy().T, out=out.numpy())
    return out


def _check(bank: Tensor, queries: Tensor, count: int, bank_groups: Tensor | None, query_groups: Tensor | None) -> None:
    if len(bank) == 0 or len(queries) == 0 or count < 1:
        raise DataError(
            f"{count} neighbours of {len(queries)} vectors among {len(bank)} cannot be found: give one of each or more."
        )
    if bank.shape[1] != queries.shape[1]:
        raise DataError(
            f"The vectors of the bank have {bank.shape[1]} numbers and the queries {queries.shape[1]}: "
            "embed both by one encoder."
        )
    if (bank_groups is None) != (query_groups is None):
        raise DataError("The groups of the bank or of the queries are missing: give both or none.")
    for vectors, groups in ((bank, bank_groups), (queries, query_groups)):
        if groups is not None and len(groups) != len(vectors):
            raise DataError(f"There are {len(vectors)} vectors but {len(groups)} groups: give one per vector.")


class _Neighbours:
    """The best of a block of queries so far, and what was found since that may be better.

    Args:
        queries: how many.
        count: neighbours of each.
        groups: (queries,) groups of the queries, or None.
    """

    def __init__(self, queries: int, count: int, groups: Tensor | None) -> None:
        self.groups = groups
        self.count = count
        self.best: Tensor | None = None
        self.place: Tensor | None = None
        self.limit = torch.full((queries,), -torch.inf)
        self.waiting: list[tuple[Tensor, Tensor, Tensor]] = []  # queries, similarities, rows of the bank
        self.waiting_counts = torch.zeros(queries, dtype=torch.int64)
        self.patience = max(2 * count, _RUN)
        self.rare = False

    def add(self, found: Tensor, groups: Tensor | None, start: int) -> None:
        """Take in the similarities (queries, rows) of a tile that starts at row ``start`` of the bank."""
        known = 0 if self.best is None else self.best.shape[1]
        # an accelerator would wait for the number of hits at every tile
        hits = None if found.device.type != "cpu" or known < self.count else self._hits(found)
        if hits is None:
            if self.groups is not None and groups is not None:
                found.masked_fill_(self.groups[:, None] == groups, -torch.inf)
            top, index = found.topk(min(self.count, found.shape[1]), dim=1, sorted=False)
            self._merge(top, index + start)
            return
        query, column = hits
        if self.groups is not None and groups is not None:
            other = self.groups[query] != groups[column]
            query, column = query[other], column[other]
        self.waiting.append((query, found[query, column], column + start))
        self.waiting_counts += torch.bincount(query, minlength=len(found))
        if int(self.waiting_counts.max()) > self.patience:
            self._settle()

    def _hits(self, found: Tensor) -> tuple[Tensor, Tensor] | None:
        """Queries and columns of what is larger than the limit; None where that is a good part of everything."""
        values, limit, width = found.numpy(), self.limit.numpy()[:, None], found.shape[1]
        if self.rare and width % _RUN == 0:
            runs = values.reshape(-1, _RUN)
            places = (found.view(len(found), -1, _RUN).amax(dim=2).numpy() > limit).ravel().nonzero()[0]
            inside = runs[places] > limit[places // (width // _RUN)]
            run, column = inside.nonzero()
            larger = places[run] * _RUN + column
        else:
            larger = (values > limit).ravel().nonzero()[0]
        self.rare = len(larger) * _RARE < values.size
        if len(larger) * 8 > values.size:
            return None
        query, column = numpy.divmod(larger, width)
        return torch.from_numpy(query), torch.from_numpy(column)

    def _settle(self) -> None:
        """Merge what waits: every query's finds are put into a row of its own, filled up with -inf."""
        query, value, row = (torch.cat(column) for column in zip(*self.waiting, strict=True))
        self.waiting.clear()
        query, order = query.sort(stable=True)
        counts = self.waiting_counts
        rank = torch.arange(len(query)) - (counts.cumsum(0) - counts)[query]
        top = torch.full((len(counts), int(counts.max())), -torch.inf)
        index = torch.zeros(top.shape, dtype=torch.int64)
        top[query, rank], index[query, rank] = value[order], row[order]
        counts.zero_()
        self._merge(top, index)

    def _merge(self, top: Tensor, index: Tensor) -> None:
        if self.best is not None and self.place is not None:
            top, index = torch.cat([self.best, top], dim=1), torch.cat([self.place, index], dim=1)
        if top.shape[1] > self.count:
            top, chosen = top.topk(self.count, dim=1, sorted=False)
            index = index.gather(1, chosen)
        self.best, self.place = top, index
        if top.device.type == "cpu" and top.shape[1] == self.count:
            self.limit = top.amin(dim=1)

    def result(self) -> tuple[Tensor, Tensor]:
        """(queries, count) similarities, falling, and rows of the bank."""
        if self.waiting:
            self._settle()
        if self.best is None or self.place is None:
            raise DataError("No vectors were compared: give at least one.")
        best, order = self.best.sort(dim=1, descending=True)
        return best, self.place.gather(1, order)
