import torch

from export.graph import Export, Graph, beside


def graph(model: str) -> Graph:
    return Graph(
        model=model,
        module=torch.nn.Identity(),
        inputs={},
        outputs={},
        dynamic={},
        cases=[],
        reference=lambda inputs, _outputs: inputs,
        parameters={"family": "toy", "variant": "vit_h"},
    )


def test_beside_the_default_every_model_and_file_has_the_variants_name() -> None:
    export = Export([graph("toy_image"), graph("toy_text")], {"toy_text/tokenizer.json": "{}"})
    named = beside(export)
    assert [graph.model for graph in named.graphs] == ["toy_image-vit_h", "toy_text-vit_h"]
    assert named.files == {"toy_text-vit_h/tokenizer.json": "{}"}
    assert named.graphs[0].parameters == export.graphs[0].parameters
