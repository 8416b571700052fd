"""Whether vectors that were taught to tell grades apart predict a document's grade from its judged neighbours
better than the frozen ones: a table of docs/measured.md.

    python tests/quality/neighbours.py [--ledger DIR] [--epochs N]

A square matrix is put behind the encoder and learns, on the topics of four collections, to weigh a document's
neighbours so that their mean grade is its own (kernel regression, each document left out of its own
prediction); it starts as the identity and is drawn to it. Tested on the topics of DL19. Needs the extra
`train`; ten minutes on two cores.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from validity import Judged, table

from harness.ledger import Ledger

TEST = "dl19_passage"
TAUGHT_BY = {
    "llmjudge": ["llmjudge"],
    "llmjudge, CSFCube, DBpedia, Chorus": [
        "llmjudge",
        "csfcube",
        "dbpedia_entity_subset",
        "chorus_electronics",
    ],
}
Topic = tuple[torch.Tensor, torch.Tensor]


def topics(name: str, ledger: Ledger) -> list[Topic]:
    """Vectors less their topic's mean, and grades from 0 to 1, of topics with 15 documents and two grades."""
    judged, found = Judged(name, ledger), []
    pairs = judged.qrels.join(
        judged.signals.select("query_id", "doc_id", "vector"), on=["query_id", "doc_id"]
    )
    for one in pairs.sort("query_id", "doc_id").partition_by("query_id", maintain_order=True):
        x = torch.tensor(one["vector"].to_numpy())
        y = torch.tensor(one["relevance"].to_numpy() / max(judged.grades), dtype=torch.float32)
        if len(y) >= 15 and y.std() > 0:
            found.append((x - x.mean(dim=0), y))
    return found


def loss(x: torch.Tensor, y: torch.Tensor, turned: torch.Tensor, sharp: torch.Tensor) -> torch.Tensor:
    """Squared error of grades predicted from the other documents, over their variance."""
    z = torch.nn.functional.normalize(x @ turned, dim=1)
    alike = z @ z.T * sharp.exp() - 1e9 * torch.eye(len(x))
    return ((torch.softmax(alike, dim=1) @ y - y) ** 2).mean() / y.var().clamp(min=0.02)


def learn(taught: list[Topic], epochs: int, hold: float = 0.01) -> tuple[torch.Tensor, torch.Tensor]:
    """The matrix and the sharpness of the weights."""
    torch.manual_seed(0)
    rng, same = np.random.default_rng(0), torch.eye(taught[0][0].shape[1])
    turned = torch.nn.Parameter(same.clone())
    sharp = torch.nn.Parameter(torch.tensor(np.log(8.0), dtype=torch.float32))
    steps = torch.optim.Adam([{"params": [turned], "lr": 1e-3}, {"params": [sharp], "lr": 1e-2}])
    for _ in range(epochs):
        for place in rng.permutation(len(taught)):
            x, y = taught[place]
            some = torch.tensor(rng.permutation(len(x))[:160])
            dropped = (torch.rand(x.shape[1]) > 0.2).float() / 0.8
            value = loss(x[some] * dropped, y[some], turned, sharp) + hold * ((turned - same) ** 2).sum()
            steps.zero_grad()
            value.backward()
            steps.step()
    return turned.detach(), sharp.detach()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ledger", type=Path, default=Path(".stopgap/validity"))
    parser.add_argument("--epochs", type=int, default=10)
    chosen = parser.parse_args()
    ledger = Ledger(chosen.ledger)
    test, rows = topics(TEST, ledger), []
    for taught_by, names in TAUGHT_BY.items():
        turned, sharp = learn([one for name in names for one in topics(name, ledger)], chosen.epochs)
        with torch.no_grad():
            frozen, learnt = (
                float(np.mean([loss(x, y, matrix, sharp) for x, y in test]))
                for matrix in (torch.eye(len(turned)), turned)
            )
        rows.append([taught_by, f"{frozen:.4f}", f"{learnt:.4f}"])
    print(table(["taught by", "error on DL19, frozen vectors", "taught"], rows), flush=True)


if __name__ == "__main__":
    main()
