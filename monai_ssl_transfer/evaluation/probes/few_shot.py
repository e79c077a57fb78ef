"""Few-shot: any probe on a few labelled cases per class, drawn by patient, several times."""

from __future__ import annotations

from dataclasses import dataclass, field

from monai_ssl_transfer.errors import DataError
from monai_ssl_transfer.evaluation.probes.draws import draw_per_class
from monai_ssl_transfer.evaluation.probes.logistic import LogisticProbe
from monai_ssl_transfer.evaluation.probes.protocol import Probe, ProbeOutcome
from monai_ssl_transfer.evaluation.probes.vectors import LabelledVectors

SHOTS = (1, 2, 4, 8, 16)


@dataclass(frozen=True)
class FewShotProbe:
    """A probe that learns from ``shots`` patients of every class; the draws are the same for every encoder.

    Fewer shots of the same draw lie within more. A probe with a grid chooses on the whole validation set, which is
    more than a few labels: the default probe has one setting, so that nothing but the shots is used.

    Args:
        shots: patients per class; 1, 2, 4, 8 and 16 are the usual ones.
        probe: what learns from them.
        repeats: draws.
        images: "one" image of each drawn patient, or "all" of the class.
    """

    shots: int = 1
    probe: Probe = field(default_factory=lambda: LogisticProbe(penalties=(1.0,)))
    repeats: int = 10
    images: str = "one"
    name: str = "few_shot"

    def predict(
        self, train: LabelledVectors, validation: LabelledVectors, test: LabelledVectors, seed: int
    ) -> ProbeOutcome:
        """Draw and probe, ``repeats`` times; see `protocol.Probe`.

        Returns:
            Probabilities of every draw in ``draws``; ``chosen["draws"]`` has what each draw chose, and its cases.

        Raises:
            DataError: a class has fewer patients than are drawn.
        """
        if self.repeats < 1:
            raise DataError(f"{self.repeats} draws of a few-shot probe are none: give repeats of 1 or more.")
        outcomes, drawn = [], []
        for number in range(self.repeats):
            some = draw_per_class(train, self.shots, seed + 1000 * number, self.images)
            outcome = self.probe.predict(some, validation, test, seed + 1000 * number)
            outcomes.append(outcome)
            drawn.append({**outcome.chosen, "cases": list(some.cases)})
        tried = [{"draw": number, **one} for number, outcome in enumerate(outcomes) for one in outcome.tried]
        settings = {"probe": self.probe.name, "shots": self.shots, "images": self.images, "draws": drawn}
        return ProbeOutcome(outcomes[0].probabilities, settings, tried, tuple(one.probabilities for one in outcomes))
