"""The manifest of a model package, and the card made from it that workers and the API share in Redis."""

import json
import re
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from jobs.settings import ModelName, ModelVersion

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*$")]


class _StrictModel(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Weights(_StrictModel):
    file: FileName
    format: Literal["safetensors", "state_dict", "exported"] = Field(
        description="`exported`: a program of `torch.export`, which contains its own architecture."
    )
    sha256: Sha256 | None = Field(None, description="Checked before the weights are loaded. None: no check.")


class Input(_StrictModel):
    """The network's input: float32, N × channels × height × width, in [0, 1] before normalisation."""

    channels: Literal[1, 3]
    height: Annotated[int, Field(ge=1, le=4096)]
    width: Annotated[int, Field(ge=1, le=4096)]


class Preprocessing(_StrictModel):
    """How an uploaded image becomes an input. Only `resize` and `center_crop` have further fields."""

    mode: Literal["book", "fmnist", "resize", "center_crop"] = Field(
        description="`book`: grayscale, stretched to the input size, inverted. `fmnist`: the object in the image, "
        "trimmed, centred, light on black. `resize`: the whole image, stretched to the input size. `center_crop`: the "
        "centre of the image, after its shorter side was resized to `shorter_side`."
    )
    shorter_side: Annotated[int, Field(ge=1, le=8192)] | None = Field(
        None, description="Only with `center_crop`: pixels. Default: the shorter side of the input."
    )
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    mean: list[float] | None = Field(None, description="One per channel, for values in [0, 1]. Default: 0.")
    std: list[Annotated[float, Field(gt=0)]] | None = Field(None, description="One per channel. Default: 1.")

    @model_validator(mode="after")
    def _fields_belong_to_the_mode(self) -> Self:
        for name in ("shorter_side", "interpolation", "mean", "std"):
            if name in self.model_fields_set and self.mode in ("book", "fmnist"):
                raise ValueError(f"{name}: not allowed with mode {self.mode!r}")
        if self.shorter_side is not None and self.mode != "center_crop":
            raise ValueError("shorter_side: only allowed with mode 'center_crop'")
        return self


class Output(_StrictModel):
    """How the network's output for an image becomes confidences."""

    activation: Literal["softmax", "sigmoid", "none"] = Field(
        "softmax",
        description="`softmax`: the network has one logit per class. `sigmoid`: it has one logit, for the second of "
        "two classes. `none`: its output is confidences.",
    )
    temperature: Annotated[float, Field(gt=0, le=100)] = Field(
        1, description="The logits are divided by it, so that confidences match the accuracy (calibration)."
    )
    threshold: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None, description="Only with `sigmoid`: the least confidence at which the second class wins. Default: 0.5."
    )
    familiar_min: float | None = Field(
        None,
        description="Only with `softmax`: an image gets the warning `unfamiliar` if the log-sum-exp of its logits, "
        "divided by `temperature`, is below this. None: no warnings.",
    )
    false_alarms: Annotated[float, Field(ge=0, le=1)] | None = Field(
        None, description="The share of test images with that warning."
    )

    @model_validator(mode="after")
    def _fields_belong_to_the_activation(self) -> Self:
        if self.threshold is not None and self.activation != "sigmoid":
            raise ValueError("threshold: only allowed with activation 'sigmoid'")
        if self.activation != "softmax" and (self.familiar_min is not None or self.false_alarms is not None):
            raise ValueError("familiar_min, false_alarms: only allowed with activation 'softmax'")
        if self.activation == "none" and self.temperature != 1:
            raise ValueError("temperature: not allowed with activation 'none'")
        return self


class GoldenImage(_StrictModel):
    """An image with a known result. A worker checks that it gets this result before it takes work."""

    file: FileName
    class_name: str
    confidence: Annotated[float, Field(ge=0, le=1)]


class Manifest(_StrictModel):
    """`manifest.json` of a model package."""

    name: ModelName
    version: ModelVersion | None = Field(
        None,
        description="Versions are ordered naturally (`m@9` < `m@10`); the highest version served is the default. "
        "None: the first eight digits of the weights' sha256.",
    )
    description: str = ""
    architecture: Literal["fmnist-mlp", "fmnist-cnn-2"] | None = Field(
        None, description="The built-in network that the weights belong to. None for an exported program."
    )
    weights: Weights
    classes: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=100)]], Field(min_length=2, max_length=65_535)
    ]
    input: Input
    preprocessing: Preprocessing
    output: Output = Output()
    golden: list[GoldenImage] = []
    seed: int | None = None
    test_accuracy: Annotated[float, Field(ge=0, le=1)] | None = None
    calibration_error: Annotated[float, Field(ge=0, le=1)] | None = Field(
        None, description="Expected calibration error on the test set, in 15 bins."
    )
    test_set: str | None = None
    license: str | None = None

    @model_validator(mode="after")
    def _has_an_architecture(self) -> Self:
        if (self.architecture is None) != (self.weights.format == "exported"):
            problem = (
                "required with these weights" if self.architecture is None else "not allowed: the program has its own"
            )
            raise ValueError(f"architecture: {problem}")
        return self

    @model_validator(mode="after")
    def _names_are_known(self) -> Self:
        numbers = dict[str, int]()
        for number, name in enumerate(self.classes):
            if (first := numbers.setdefault(name, number)) < number:
                raise ValueError(f"classes: duplicate name: {name!r} is class {first} and class {number}")
        for image in self.golden:
            if image.class_name not in self.classes:
                raise ValueError(f"golden: {image.file} expects {image.class_name!r}, which is not in `classes`")
        if self.output.activation == "sigmoid" and len(self.classes) != 2:
            raise ValueError(f"classes: activation 'sigmoid' needs two classes, not {len(self.classes)}")
        for name in ("mean", "std"):
            values = getattr(self.preprocessing, name)
            if values is not None and len(values) != self.input.channels:
                raise ValueError(f"preprocessing.{name}: {len(values)} values for {self.input.channels} channels")
        if self.preprocessing.mode in ("book", "fmnist") and self.input.channels != 1:
            raise ValueError(
                f"preprocessing.mode: {self.preprocessing.mode!r} has one channel, but input.channels is 3"
            )
        return self

    def card(self, sha256: str) -> "ModelCard":
        """The card of this package. `sha256` is that of its weights."""
        return ModelCard(
            name=self.name,
            version=self.version or sha256[:8],
            description=self.description,
            classes=self.classes,
            input=self.input,
            preprocessing=self.preprocessing.mode,
            sha256=sha256,
            test_accuracy=self.test_accuracy,
            test_set=self.test_set,
        )


class ModelCard(_StrictModel):
    """One version of a model, as clients see it. A version is immutable: other weights are another version."""

    name: ModelName
    version: str
    description: str
    classes: list[str]
    input: Input
    preprocessing: str
    sha256: str
    test_accuracy: float | None
    test_set: str | None

    @property
    def ref(self) -> str:
        return f"{self.name}@{self.version}"


def name_of(ref: str) -> str:
    """The name in `name@version` or `name`. `@fetch`, which stands in a model's place, is returned unchanged."""
    return ref if ref.startswith("@") else ref.partition("@")[0]


def natural_sort_key(text: str) -> list[tuple[bool, int, str]]:
    """A sort key that compares numbers in a text by value, so that `m@9` < `m@10`."""
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in re.findall(r"\d+|\D+", text)]


def card_from_json(data: bytes) -> ModelCard:
    """Read a card as stored in Redis. Fields that a newer release added are ignored."""
    known = {key: value for key, value in json.loads(data).items() if key in ModelCard.model_fields}
    return ModelCard.model_validate(known)
