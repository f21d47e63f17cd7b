from torch import Tensor, nn

from jobs.item_codes import ItemCode
from jobs.model_manifest import Output
from jobs.records import Failure
from tests.support.pictures import LIMITS, samples
from tests.support.processes import ROOT
from worker.inference.classifier import Classifier
from worker.inference.head import Head
from worker.inference.images.preprocess import BOOK
from worker.inference.packages.load import load_package


class Choosy(nn.Module):
    """A network that raises where an image is among those of its forward that it cannot take."""

    def __init__(self, network: nn.Module, refused: list[Tensor]) -> None:
        super().__init__()
        self.forwards = list[int]()
        self.tries = [0] * len(refused)
        self._network = network
        self._refused = refused

    def forward(self, inputs: Tensor) -> Tensor:
        self.forwards.append(len(inputs))
        found = [number for number, bad in enumerate(self._refused) if (inputs == bad).flatten(1).all(dim=1).any()]
        for number in found:
            self.tries[number] += 1
        if found:
            raise ValueError("an image that the model cannot take")
        result: Tensor = self._network(inputs)
        return result


def test_images_that_the_model_raises_on_fail_alone_in_three_tries_and_few_forwards() -> None:
    sound = load_package(ROOT / "weights" / "fmnist-mlp", LIMITS)
    pictures = list(samples().values())
    images = [pictures[2 + number % (len(pictures) - 2)] for number in range(64)]
    expected = sound.classify(images, [1] * 64)
    images[7], images[40] = pictures[:2]
    seen = list[Tensor]()
    sound._network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    sound.classify(pictures[:2], [1, 1])
    network = Choosy(sound._network, list(seen[0]))

    outcomes = Classifier(network, sound.card, BOOK, Head(Output(), 10), LIMITS).classify(images, [1] * 64)

    assert [number for number, outcome in enumerate(outcomes) if isinstance(outcome, Failure)] == [7, 40]
    assert outcomes[7] == outcomes[40] == Failure(ItemCode.MODEL_FAILED)
    for number, (outcome, wanted) in enumerate(zip(outcomes, expected, strict=True)):
        if number not in (7, 40):
            assert isinstance(outcome, list)
            assert isinstance(wanted, list)
            assert outcome[0].class_index == wanted[0].class_index
    assert network.tries == [3, 3]
    assert len(network.forwards) == 1 + 8 + 2 * 8
