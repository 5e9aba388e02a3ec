"""A model around another graph: the same versions, functions and metadata."""

import onnx_ir as ir

__all__ = ["model_around"]


def model_around(graph: ir.GraphView, model: ir.Model) -> ir.Model:
    """Return `model` with another graph, to be cloned or serialised; copies no node.

    Args:
        graph: A view, such as on some of the nodes.
        model: Stays unchanged.
    """
    graph.doc_string, graph.name = model.graph.doc_string, model.graph.name
    graph.opset_imports = model.graph.opset_imports
    graph.metadata_props.update(model.graph.metadata_props)
    graph.meta.update(model.graph.meta)
    return ir.Model(
        graph,  # type: ignore[arg-type]
        ir_version=model.ir_version,
        producer_name=model.producer_name,
        producer_version=model.producer_version,
        domain=model.domain,
        model_version=model.model_version,
        doc_string=model.doc_string,
        functions=tuple(model.functions.values()),
        metadata_props=dict(model.metadata_props),
        device_configurations=model.device_configurations,
    )
