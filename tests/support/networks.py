"""A network that is made without training, for tests of what is done with one."""

import numpy as np

from fashion.data.dataset import Dataset


def least_squares_network(dataset: Dataset, *, num_features: int) -> bytes:
    """Random features and a least-squares classifier, as ONNX."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    from fashion.images.transform import normalise

    train, num_classes = dataset.train, len(dataset.class_names)
    pixels = normalise(train.images, dataset.mean, dataset.std).reshape(len(train), -1)
    rng = np.random.default_rng(0)
    projection = (rng.normal(size=(pixels.shape[1], num_features)) / np.sqrt(pixels.shape[1])).astype(np.float32)
    features = np.maximum(pixels @ projection, 0)
    targets = 4 * np.eye(num_classes, dtype=np.float32)[train.labels]
    weights = np.linalg.lstsq(features, targets, rcond=None)[0].astype(np.float32)
    shape = ["batch", len(dataset.mean), *train.images.shape[1:3]]
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["image"], ["pixels"]),
            helper.make_node("MatMul", ["pixels", "projection"], ["features"]),
            helper.make_node("Relu", ["features"], ["embedding"]),
            helper.make_node("MatMul", ["embedding", "weights"], ["logits"]),
        ],
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", num_classes]),
            helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", features.shape[1]]),
        ],
        [numpy_helper.from_array(projection, "projection"), numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content


def swapped_classes(network: bytes, one: int, other: int) -> bytes:
    """The same network, which takes two classes for each other.

    Args:
        network: of `least_squares_network`.
        one: a class.
        other: a class.
    """
    import onnx
    from onnx import numpy_helper

    model = onnx.load_from_string(network)
    (tensor,) = [tensor for tensor in model.graph.initializer if tensor.name == "weights"]
    weights = numpy_helper.to_array(tensor).copy()
    weights[:, [one, other]] = weights[:, [other, one]]
    tensor.CopyFrom(numpy_helper.from_array(weights, "weights"))
    content: bytes = model.SerializeToString()
    return content
