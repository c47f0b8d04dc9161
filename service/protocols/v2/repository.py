"""What the service says about its models in this protocol."""

from collections.abc import Sequence
from importlib.metadata import version

from persona.artifact.format import TensorFact
from persona.engine import Engine
from persona.engine.model import Model
from service.lifecycle import Service
from service.protocols.v2.schema import (
    ModelMetadata,
    ModelStatistics,
    RepositoryModel,
    ServerMetadata,
    Statistics,
    TensorMetadata,
)

EXTENSIONS = ["binary_tensor_data", "model_repository", "statistics"]
EMBEDDING_GRAPHS = ("embedding", "attention", "attention_full")


def server_metadata() -> ServerMetadata:
    """What answers here."""
    number = version("persona-encoder")
    return ServerMetadata(name="persona", version=number, extensions=EXTENSIONS)


def model_metadata(engine: Engine, model: Model) -> ModelMetadata:
    """A model's loaded versions, and the tensors of one of them."""
    manifest = model.manifest
    graphs = [manifest.graphs[name] for name in EMBEDDING_GRAPHS if name in manifest.graphs]
    outputs = {tensor.name: tensor for graph in graphs for tensor in graph.outputs}
    return ModelMetadata(
        name=manifest.name,
        versions=[one.version for one in index(engine) if one.name == manifest.name],
        platform="onnx_onnxv1",
        inputs=_tensors(graphs[0].inputs),
        outputs=_tensors(list(outputs.values())),
    )


def index(engine: Engine) -> list[RepositoryModel]:
    """Every loaded version of every model."""
    manifests = [model.manifest for model in engine.registry.loaded]
    return [
        RepositoryModel(name=one.name, version=one.version, state="READY", reason="")
        for one in manifests
    ]


def statistics(service: Service, models: Sequence[Model]) -> Statistics:
    """What models have answered, summed over the workers."""
    totals = service.tally.totals()
    return Statistics(
        model_stats=[
            ModelStatistics(
                name=model.manifest.name,
                version=model.manifest.version,
                inference_count=totals["persona_histories_total", *_name(model)],
                execution_count=totals["persona_runs_total", *_name(model)],
            )
            for model in models
        ]
    )


def _name(model: Model) -> tuple[str, str]:
    return model.manifest.name, model.manifest.version


def _tensors(facts: Sequence[TensorFact]) -> list[TensorMetadata]:
    return [TensorMetadata(name=f.name, datatype=f.datatype, shape=f.shape) for f in facts]
