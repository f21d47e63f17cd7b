from torch import Tensor, nn

from jobs.item_codes import ItemCode
from jobs.model_manifest import Output
from jobs.records import Failure
from tests.support.pictures import LIMITS, samples
from tests.support.processes import ROOT
from worker.inference.classifier import Classifier
from worker.inference.head import Head
from worker.inference.images.preprocess import BOOK
from worker.inference.networks.pace import Pace
from worker.inference.packages.load import load_package


def test_a_forward_pass_has_no_more_images_than_the_batch_that_pays() -> None:
    classifier = load_package(ROOT / "weights" / "fmnist-mlp", LIMITS)
    pictures = [*samples().values()][:20]
    expected = classifier.classify(pictures, [2] * 20)
    pictures.insert(5, b"not an image")
    batches = list[int]()
    classifier.network.register_forward_pre_hook(lambda _, inputs: batches.append(len(inputs[0])))
    classifier.pace = Pace(8, 0.001)

    outcomes = classifier.classify(pictures, [2] * 21)

    assert batches == [7, 8, 5]
    assert outcomes.pop(5) == Failure(ItemCode.NOT_AN_IMAGE)
    for outcome, expected_outcome in zip(outcomes, expected, strict=True):
        assert isinstance(outcome, list)
        assert isinstance(expected_outcome, list)
        assert [it.class_index for it in outcome] == [it.class_index for it in expected_outcome]


class FailsOnImages(nn.Module):
    """A network that raises an error if one of these images is in its batch."""

    def __init__(self, network: nn.Module, failing: list[Tensor]) -> None:
        super().__init__()
        self.batches = list[int]()
        self.tries = [0] * len(failing)
        self._network = network
        self._failing = failing

    def forward(self, inputs: Tensor) -> Tensor:
        self.batches.append(len(inputs))
        failing = [number for number, bad in enumerate(self._failing) if (inputs == bad).flatten(1).all(dim=1).any()]
        for number in failing:
            self.tries[number] += 1
        if failing:
            raise ValueError("an image on which the network fails")
        result: Tensor = self._network(inputs)
        return result


def test_images_on_which_the_network_fails_do_not_affect_others_and_take_three_tries() -> None:
    shipped = load_package(ROOT / "weights" / "fmnist-mlp", LIMITS)
    pictures = list(samples().values())
    images = [pictures[2 + number % (len(pictures) - 2)] for number in range(64)]
    expected = shipped.classify(images, [1] * 64)
    images[7], images[40] = pictures[:2]
    failing = list[Tensor]()
    shipped.network.register_forward_pre_hook(lambda _, inputs: failing.append(inputs[0].clone()))
    shipped.classify(pictures[:2], [1, 1])
    network = FailsOnImages(shipped.network, list(failing[0]))

    outcomes = Classifier(network, shipped.card, BOOK, Head(Output(), 10), LIMITS).classify(images, [1] * 64)

    assert [number for number, outcome in enumerate(outcomes) if isinstance(outcome, Failure)] == [7, 40]
    assert outcomes[7] == outcomes[40] == Failure(ItemCode.MODEL_FAILED)
    for number, (outcome, expected_outcome) in enumerate(zip(outcomes, expected, strict=True)):
        if number not in (7, 40):
            assert isinstance(outcome, list)
            assert isinstance(expected_outcome, list)
            assert outcome[0].class_index == expected_outcome[0].class_index
    assert network.tries == [3, 3]
    assert len(network.batches) == 1 + 8 + 2 * 8
