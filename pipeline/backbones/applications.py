"""`keras.applications` as backbones: one row each in the table below.

What these models do to their inputs is left to `InputScaling`: layers in them that scale are not built, or taken out.
Weights are those of Keras without the classifier; digests are Keras's own, but for MobileNet and MobileNetV2, of
which it has none: theirs are those that an independent collection publishes, whose other digests are Keras's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pipeline.backbones import block_names, downloads, layer_names
from pipeline.backbones.backbone import Backbone, Builder

if TYPE_CHECKING:
    import keras

    from pipeline.backbones.scaling import ScalingMode

_FILE = "{0}_weights_tf_dim_ordering_tf_kernels_notop.h5"


def entries() -> tuple[Backbone, ...]:
    return (
        *_resnets(),
        *_inceptions(),
        *_efficientnets(),
        *_mobile(),
        *_convnexts(),
        *_densenets(),
        *_vggs(),
    )


def _entry(
    name: str,
    constructor: str,
    scaling: ScalingMode,
    sizes: tuple[int, int],
    block_ends: tuple[str, ...],
    file: str,
    digest: str,
    *,
    always_scales: bool = False,
    **options: bool,
) -> Backbone:
    """`sizes`: native and smallest. `always_scales`: whether Keras has no option to leave its own scaling out."""
    build = _builder(name, constructor, file, digest, always_scales, options)
    native, minimum = sizes
    return Backbone(name, build, scaling, native, minimum, block_ends, imagenet=digest, download=file)


def _builder(
    name: str, constructor: str, file: str, digest: str, always_scales: bool, options: dict[str, bool]
) -> Builder:
    def build(size: int, *, pretrained: bool) -> keras.Model:
        import keras

        from pipeline.backbones import keras_files

        make: Callable[..., keras.Model] = getattr(keras.applications, constructor)
        model = make(weights=None, include_top=False, input_shape=(size, size, 3), **options)
        if always_scales:
            model = keras.models.clone_model(model, clone_function=_unscaled)
        layer_names.settle(model)
        model.name = name
        if pretrained:
            keras_files.load(model, downloads.fetch(file, digest))
        return model

    return build


def _unscaled(layer: keras.Layer) -> keras.Layer:
    """A new layer like this one, that does nothing if this one scales."""
    import keras

    if isinstance(layer, keras.layers.Rescaling | keras.layers.Normalization):
        return keras.layers.Identity()
    return type(layer).from_config(layer.get_config())


def _resnets() -> list[Backbone]:
    return [
        _entry(
            f"resnet{depth}{version}",
            f"ResNet{depth}{version.upper()}",
            "tf" if version else "caffe",
            (224, 32),
            block_names.resnet(*blocks),
            f"resnet/{_FILE.format(f'resnet{depth}{version}')}",
            digest,
        )
        for depth, version, blocks, digest in (
            (50, "", (3, 4, 6, 3), "4d473c1dd8becc155b73f8504c6f6626"),
            (101, "", (3, 4, 23, 3), "88cf7a10940856eca736dc7b7e228a21"),
            (152, "", (3, 8, 36, 3), "ee4c566cf9a93f14d82f913c2dc6dd0c"),
            (50, "v2", (3, 4, 6, 3), "fac2f116257151a9d068a22e544a4917"),
            (101, "v2", (3, 4, 23, 3), "c0ed64b8031c3730f411d2eb4eea35b5"),
            (152, "v2", (3, 8, 36, 3), "ed17cf2e0169df9d443503ef94b23b33"),
        )
    ]


def _inceptions() -> list[Backbone]:
    return [
        _entry(
            name,
            constructor,
            "tf",
            (299, minimum),
            ends,
            f"{name}/{_FILE.format(name)}",
            digest,
        )
        for name, constructor, minimum, ends, digest in (
            (
                "inception_v3",
                "InceptionV3",
                75,
                tuple(f"mixed{i}" for i in range(10)),
                "bcbd6486424b2319ff4ef7d526e38f63",
            ),
            (
                "inception_resnet_v2",
                "InceptionResNetV2",
                75,
                block_names.inception_resnet_v2(),
                "d19885ff4a710c122648d3b5c3b684e4",
            ),
            ("xception", "Xception", 71, block_names.xception(), "b0042744bf5b25fce3cb969f33bebb97"),
        )
    ]


def _efficientnets() -> list[Backbone]:
    """The first generation always scales, so that is taken out; B0 to B3 of the second scale alike, S to L not."""
    first = (
        ("b0", 224, 1.0, "50bc09e76180e00e4465e1a485ddc09d"),
        ("b1", 240, 1.1, "74c4e6b3e1f6a1eea24c589628592432"),
        ("b2", 260, 1.2, "111f8e2ac8aa800a7a99e3239f7bfb39"),
        ("b3", 300, 1.4, "af6d107764bb5b1abb91932881670226"),
        ("b4", 380, 1.8, "ebc24e6d6c33eaebbd558eafbeedf1ba"),
        ("b5", 456, 2.2, "38879255a25d3c92d5e44e04ae6cec6f"),
        ("b6", 528, 2.6, "9ecce42647a20130c1f39a5d4cb75743"),
        ("b7", 600, 3.1, "cbcfe4450ddf6f3ad90b1b398090fe4a"),
    )
    second = (
        ("b0", 224, block_names.efficientnet_v2_base(1.0), "893217f2bb855e2983157299931e43ff"),
        ("b1", 240, block_names.efficientnet_v2_base(1.1), "0e80663031ca32d657f9caa404b6ec37"),
        ("b2", 260, block_names.efficientnet_v2_base(1.2), "1dfe2e7a5d45b6632553a8961ea609eb"),
        ("b3", 300, block_names.efficientnet_v2_base(1.4), "f6abf7b5849ac99a89b50dd3fd532856"),
        ("s", 384, block_names.efficientnet_v2(2, 4, 4, 6, 9, 15), "af0682fb74e8c54910f2d4393339c070"),
        ("m", 480, block_names.efficientnet_v2(3, 5, 5, 7, 14, 18, 5), "1b8dc055df72dde80d614482840fe342"),
        ("l", 480, block_names.efficientnet_v2(4, 7, 7, 10, 19, 25, 7), "b0b66b5c863aef5b46e8608fe1711615"),
    )
    return [
        _entry(
            f"efficientnet_{size}",
            f"EfficientNet{size.upper()}",
            "torch",
            (native, 32),
            block_names.efficientnet(depth),
            f"../../keras-applications/efficientnet{size}_notop.h5",
            digest,
            always_scales=True,
        )
        for size, native, depth, digest in first
    ] + [
        _entry(
            f"efficientnet_v2_{size}",
            f"EfficientNetV2{size.upper()}",
            "torch" if size.startswith("b") else "signed",
            (native, 32),
            ends,
            f"efficientnet_v2/efficientnetv2-{size}_notop.h5",
            digest,
            include_preprocessing=False,
        )
        for size, native, ends, digest in second
    ]


def _mobile() -> list[Backbone]:
    return [
        _entry(
            "mobilenet",
            "MobileNet",
            "tf",
            (224, 32),
            ("conv1_relu", *(f"conv_pw_{i}_relu" for i in range(1, 13))),
            "mobilenet/mobilenet_1_0_224_tf_no_top.h5",
            "725ccbd03d61d7ced5b5c4cd17e7d527",
        ),
        _entry(
            "mobilenet_v2",
            "MobileNetV2",
            "tf",
            (224, 32),
            block_names.mobilenet_v2(),
            "mobilenet_v2/mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5",
            "f1a68526548f7541cda07e19ba6c85f4",
        ),
        _entry(
            "mobilenet_v3_small",
            "MobileNetV3Small",
            "tf",
            (224, 32),
            block_names.mobilenet_v3("project_bn", 10, {1, 3, 6, 8}),
            "mobilenet_v3/weights_mobilenet_v3_small_224_1.0_float_no_top_v2.h5",
            "d3e8ec802a04aa4fc771ee12a9a9b836",
            include_preprocessing=False,
        ),
        _entry(
            "mobilenet_v3_large",
            "MobileNetV3Large",
            "tf",
            (224, 32),
            block_names.mobilenet_v3("add", 14, {1, 3, 6, 10, 12}),
            "mobilenet_v3/weights_mobilenet_v3_large_224_1.0_float_no_top_v2.h5",
            "07fb09a5933dd0c8eaafa16978110389",
            include_preprocessing=False,
        ),
        # Each cell of a NASNet also takes what the cell before the last one made, so only the stem can be cut off.
        _entry(
            "nasnet_mobile",
            "NASNetMobile",
            "tf",
            (224, 32),
            ("stem_bn1",),
            "nasnet/NASNet-mobile-no-top.h5",
            "1ed92395b5b598bdda52abe5c0dbfd63",
        ),
        _entry(
            "nasnet_large",
            "NASNetLarge",
            "tf",
            (331, 32),
            ("stem_bn1",),
            "nasnet/NASNet-large-no-top.h5",
            "d81d89dc07e6e56530c4e77faddd61b5",
        ),
    ]


def _convnexts() -> list[Backbone]:
    return [
        _entry(
            f"convnext_{size}",
            constructor,
            "torch",
            (224, 32),
            block_names.convnext(size),
            f"convnext/convnext_{size}_notop.h5",
            digest,
            include_preprocessing=False,
        )
        for size, constructor, digest in (
            ("tiny", "ConvNeXtTiny", "d547c096cabd03329d7be5562c5e14798aa39ed24b474157cef5e85ab9e49ef1"),
            ("small", "ConvNeXtSmall", "6fc8009faa2f00c1c1dfce59feea9b0745eb260a7dd11bee65c8e20843da6eab"),
            ("base", "ConvNeXtBase", "40a20c5548a5e9202f69735ecc06c990e6b7c9d2de39f0361e27baeb24cb7c45"),
            ("large", "ConvNeXtLarge", "96f02b6f0753d4f543261bc9d09bed650f24dd6bc02ddde3066135b63d23a1cd"),
            ("xlarge", "ConvNeXtXLarge", "de3f8a54174130e0cecdc71583354753d557fcf1f4487331558e2a16ba0cfe05"),
        )
    ]


def _densenets() -> list[Backbone]:
    return [
        _entry(
            f"densenet{depth}",
            f"DenseNet{depth}",
            "torch",
            (224, 32),
            ("pool1", "pool2_pool", "pool3_pool", "pool4_pool"),
            f"densenet/{_FILE.format(f'densenet{depth}')}",
            digest,
        )
        for depth, digest in (
            (121, "30ee3e1110167f948a6b9946edeeb738"),
            (169, "b8c4d4c20dd625c148057b9ff1c1176b"),
            (201, "c13680b51ded0fb44dff2d8f86ac8bb1"),
        )
    ]


def _vggs() -> list[Backbone]:
    return [
        _entry(
            f"vgg{depth}",
            f"VGG{depth}",
            "caffe",
            (224, 32),
            tuple(f"block{i}_pool" for i in range(1, 5)),
            f"vgg{depth}/{_FILE.format(f'vgg{depth}')}",
            digest,
        )
        for depth, digest in ((16, "6d6bbae143d832006294945121d1f1fc"), (19, "253f8cb515780f3b799900260a226db6"))
    ]
