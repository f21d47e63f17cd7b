"""What a model package says of itself: its manifest, and the card of it that workers and API share in Redis."""

import json
import re
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from jobs.settings import ModelName, ModelVersion

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*$")]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Weights(_Part):
    file: FileName
    format: Literal["safetensors", "state_dict", "exported"] = Field(
        description="`exported`: a program of torch.export, which brings its own architecture."
    )
    sha256: Sha256 | None = Field(None, description="Checked before the weights are read; None: taken as they are.")


class Input(_Part):
    """What the network takes: float32, N × channels × height × width, in [0, 1] before any normalisation."""

    channels: Literal[1, 3]
    height: Annotated[int, Field(ge=1, le=4096)]
    width: Annotated[int, Field(ge=1, le=4096)]


class Preprocessing(_Part):
    """How an upload becomes an input. Only `resize` and `center_crop` have further fields."""

    mode: Literal["book", "fmnist", "resize", "center_crop"] = Field(
        description="`book`: gray, stretched, negated. `fmnist`: the object in the picture, trimmed and centred. "
        "`resize`: all of it, stretched. `center_crop`: the centre, after its shorter side was resized."
    )
    shorter_side: Annotated[int, Field(ge=1, le=8192)] | None = Field(
        None, description="Of `center_crop`, in pixels; none: that of the input."
    )
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    mean: list[float] | None = Field(None, description="Of each channel, of values in [0, 1]; none: 0.")
    std: list[Annotated[float, Field(gt=0)]] | None = Field(None, description="Of each channel; none: 1.")

    @model_validator(mode="after")
    def _fields_belong_to_the_mode(self) -> Self:
        for name in ("shorter_side", "interpolation", "mean", "std"):
            if name in self.model_fields_set and self.mode in ("book", "fmnist"):
                raise ValueError(f"{name}: the mode {self.mode!r} has no such field")
        if self.shorter_side is not None and self.mode != "center_crop":
            raise ValueError("shorter_side: only the mode 'center_crop' has this field")
        return self


class Output(_Part):
    """What becomes of the numbers that the network puts out for an image."""

    activation: Literal["softmax", "sigmoid", "none"] = Field(
        "softmax",
        description="`softmax`: one number for each class. `sigmoid`: one number, for the second of two classes. "
        "`none`: the network puts out confidences itself.",
    )
    temperature: Annotated[float, Field(gt=0, le=100)] = Field(
        1, description="The numbers are divided by it, so that confidences are as often right as they say."
    )
    threshold: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None, description="Of `sigmoid`: the second class is the answer from this confidence on; none: from 0.5 on."
    )
    familiar_min: float | None = Field(
        None,
        description="The least log-sum-exp of the numbers, after `temperature`, of an image that is like those that "
        "were learned; one with less has the warning `unfamiliar`. None: no image has.",
    )
    false_alarms: Annotated[float, Field(ge=0, le=1)] | None = Field(
        None, description="The share of test images that have that warning."
    )

    @model_validator(mode="after")
    def _fields_belong_to_the_activation(self) -> Self:
        if self.threshold is not None and self.activation != "sigmoid":
            raise ValueError("threshold: only the activation 'sigmoid' has this field")
        if self.activation != "softmax" and (self.familiar_min is not None or self.false_alarms is not None):
            raise ValueError("familiar_min: only the activation 'softmax' has this field")
        if self.activation == "none" and self.temperature != 1:
            raise ValueError("temperature: the activation 'none' has no such field")
        return self


class GoldenImage(_Part):
    """An image whose class is known: the worker classifies it before it takes work."""

    file: FileName
    class_name: str
    confidence: Annotated[float, Field(ge=0, le=1)]


class Manifest(_Part):
    """`manifest.json` of a model package."""

    name: ModelName
    version: ModelVersion | None = Field(
        None,
        description="Of several that are served the last is the newest: numbers in it count by their value, and "
        "what else it has by the alphabet. None: the first eight digits of the weights' sha256.",
    )
    description: str = ""
    architecture: Literal["fmnist-mlp", "fmnist-cnn-2"] | None = Field(
        None, description="The network that the weights are of; none, where they are an exported program."
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
        None, description="The expected calibration error on the test set, in 15 bins."
    )
    test_set: str | None = None
    license: str | None = None

    @model_validator(mode="after")
    def _has_an_architecture(self) -> Self:
        if (self.architecture is None) != (self.weights.format == "exported"):
            what = "must be named" if self.architecture is None else "is in an exported program, and not to be named"
            raise ValueError(f"architecture: {what}")
        return self

    @model_validator(mode="after")
    def _names_are_known(self) -> Self:
        if len(set(self.classes)) < len(self.classes):
            raise ValueError("classes: a name stands twice")
        for image in self.golden:
            if image.class_name not in self.classes:
                raise ValueError(f"golden: {image.file} expects {image.class_name!r}, which is no class")
        if self.output.activation == "sigmoid" and len(self.classes) != 2:
            raise ValueError(f"classes: the activation 'sigmoid' is of two classes, here are {len(self.classes)}")
        for name in ("mean", "std"):
            values = getattr(self.preprocessing, name)
            if values is not None and len(values) != self.input.channels:
                raise ValueError(f"preprocessing.{name}: has {len(values)} values for {self.input.channels} channels")
        if self.preprocessing.mode in ("book", "fmnist") and self.input.channels != 1:
            raise ValueError(f"preprocessing.mode: {self.preprocessing.mode!r} gives one channel, input.channels is 3")
        return self

    def card(self, sha256: str) -> "ModelCard":
        """The card of this package with these weights."""
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


class ModelCard(_Part):
    """One version of a model, as clients see it. A version never changes: other weights are another version."""

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
    """The model's name in `name@version`, or in a name alone."""
    return ref if ref.startswith("@") else ref.partition("@")[0]


def natural_sort_key(text: str) -> list[tuple[bool, int, str]]:
    """Sorts by the values of the numbers in a text: `m@9` before `m@10`, of which that is the newer version."""
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in re.findall(r"\d+|\D+", text)]


def card_from_json(data: bytes) -> ModelCard:
    """A card as the store keeps it. Fields of a newer version are passed over."""
    known = {key: value for key, value in json.loads(data).items() if key in ModelCard.model_fields}
    return ModelCard.model_validate(known)
