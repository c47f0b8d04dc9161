"""What the service says about its models in this protocol."""

from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import version

from persona.artifact.format import TensorFact
from persona.engine import Engine
from persona.engine.model import Model
from service.lifecycle import Service
from service.protocols.v2.schema import (
    Duration,
    InferenceStatistics,
    ModelMetadata,
    ModelStatistics,
    RepositoryModel,
    ServerMetadata,
    Statistics,
    TensorMetadata,
)

Totals = Mapping[tuple[str, str, str], int]  # by the metric's name, model and version
EXTENSIONS = ["binary_tensor_data", "model_repository", "statistics"]
EMBEDDING_GRAPHS = ("embedding", "attention", "attention_full")


@cache
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
    return Statistics(model_stats=[_statistics(totals, model) for model in models])


def _statistics(totals: Totals, model: Model) -> ModelStatistics:
    name, number = model.manifest.name, model.manifest.version

    def total(metric: str) -> int:
        return totals[f"persona_{metric}", name, number]

    def duration(stage: str, outcome: str = "success") -> Duration:
        ns = total(f"infer_{stage}_nanoseconds_total")
        return Duration(count=total(f"infer_{outcome}_total"), ns=ns)

    return ModelStatistics(
        name=name,
        version=number,
        last_inference=total("last_infer_milliseconds"),
        inference_count=total("histories_total"),
        execution_count=total("runs_total"),
        inference_stats=InferenceStatistics(
            success=duration("success"),
            fail=duration("fail", "fail"),
            queue=duration("queue"),
            compute_input=duration("compute_input"),
            compute_infer=duration("compute_infer"),
            compute_output=duration("compute_output"),
        ),
    )


def _tensors(facts: Sequence[TensorFact]) -> list[TensorMetadata]:
    return [TensorMetadata(name=f.name, datatype=f.datatype, shape=f.shape) for f in facts]
