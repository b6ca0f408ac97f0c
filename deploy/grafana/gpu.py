"""The dashboard of GPUs: by Triton's metrics, and by NVIDIA's dcgm-exporter where that runs."""

from grafana_foundation_sdk.models import units

from deploy.grafana.board import ORANGE, RED, Board, Levels, Query
from deploy.grafana.promql import Series

_AT = Series('namespace=~"$namespace",job="$job",instance=~"$instance"')
_GPU = Series('Hostname=~"$host",gpu=~"$gpu"')
_USED = f"{_AT.of('nv_gpu_memory_used_bytes')} / {_AT.of('nv_gpu_memory_total_bytes')}"
# The series of MIG's parts have the label GPU_I_ID.
_NAME = "{{Hostname}} {{gpu}} {{GPU_I_ID}}"


def gpu() -> Board:
    board = (
        Board(
            "visiongate-gpu",
            "Visiongate: GPU",
            "Are GPUs well, busy, and full. Above as Tritons see their own, below as dcgm-exporter sees all.",
        )
        .variable("namespace", "Namespace", "label_values(nv_gpu_utilization, namespace)")
        .variable(
            "job",
            "Job",
            'label_values(nv_gpu_utilization{namespace=~"$namespace"}, job)',
            current="visiongate-triton",
        )
        .variable(
            "instance",
            "Triton",
            'label_values(nv_gpu_utilization{namespace=~"$namespace",job="$job"}, instance)',
        )
        .variable("host", "Host (DCGM)", "label_values(DCGM_FI_DEV_GPU_UTIL, Hostname)")
        .variable("gpu", "GPU (DCGM)", 'label_values(DCGM_FI_DEV_GPU_UTIL{Hostname=~"$host"}, gpu)')
        .mark_alerts('ALERTS{alertname=~"VisiongateGpu.+",alertstate="firing"}')
    )
    for part in (_first_look, _tritons, _dcgm):
        part(board)
    return board


def _first_look(board: Board) -> None:
    (
        board.number(
            "GPUs of Tritons",
            "That Tritons see. Fewer than there should be: look for an Xid, and at `nvidia-smi` of the host.",
            Query(f"count({_AT.of('nv_gpu_utilization')})", "GPUs"),
            width=4,
        )
        .number(
            "Busy",
            "Mean of all. Little while requests wait: more instances of models, larger batches.",
            Query(f"avg({_AT.of('nv_gpu_utilization')})", "busy"),
            unit=units.PercentUnit,
            width=4,
        )
        .number(
            "Memory of the fullest",
            "VisiongateGpuMemoryFull from 95 %.",
            Query(f"max({_USED})", "taken"),
            unit=units.PercentUnit,
            levels=Levels(steps=((0.9, ORANGE), (0.95, RED))),
            width=4,
        )
        .number(
            "Last Xid",
            "The largest number of all GPUs; 0 is none. NVIDIA's table says what it means. VisiongateGpuXid.",
            Query(f"max({_GPU.of('DCGM_FI_DEV_XID_ERRORS')})", "Xid"),
            levels=Levels(steps=((1, RED),)),
            width=4,
        )
        .number(
            "Hottest",
            "Many GPUs slow down above 80 to 90 degrees.",
            Query(f"max({_GPU.of('DCGM_FI_DEV_GPU_TEMP')})", "temperature"),
            unit=units.Celsius,
            levels=Levels(steps=((80, ORANGE), (88, RED))),
            width=4,
        )
        .number(
            "Rows that were remapped",
            "After memory errors that could not be corrected: VisiongateGpuEcc when one is new.",
            Query(f"sum({_GPU.of('DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS')})", "rows"),
            levels=Levels(steps=((1, ORANGE),)),
            width=4,
        )
    )


def _tritons(board: Board) -> None:
    name = "{{instance}} {{gpu_uuid}}"
    (
        board.row("As Tritons see them")
        .graph(
            "Busy",
            "Share of time in which something ran on the GPU, whoever it was.",
            Query(_AT.of("nv_gpu_utilization"), name),
            unit=units.PercentUnit,
            maximum=1,
        )
        .graph(
            "Memory",
            "Share that is taken, whoever did: VisiongateGpuMemoryFull from 95 %.",
            Query(_USED, name),
            unit=units.PercentUnit,
            maximum=1,
        )
        .graph(
            "Power",
            "Share of the limit. At the limit the GPU is as fast as it may be.",
            Query(f"{_AT.of('nv_gpu_power_usage')} / {_AT.of('nv_gpu_power_limit')}", name),
            unit=units.PercentUnit,
        )
        .graph(
            "Energy of a request",
            "Mean joules, of all GPUs and models together.",
            Query(
                f"{_AT.rate('nv_energy_consumption')} / {_AT.rate('nv_inference_request_success')}",
                "joules",
            ),
            unit=units.Joule,
        )
    )


def _dcgm(board: Board) -> None:
    (
        board.row("As dcgm-exporter sees them")
        .graph(
            "Busy",
            "Share of time in which something ran on the GPU, whoever it was. Not of GPUs in MIG mode.",
            Query(_GPU.of("DCGM_FI_DEV_GPU_UTIL"), "{{Hostname}} {{gpu}}"),
            unit=units.Percent,
            maximum=100,
        )
        .graph(
            "Memory that is taken",
            "By all programs; of MIG's parts each for itself.",
            Query(_GPU.of("DCGM_FI_DEV_FB_USED"), _NAME),
            unit=units.Mebibytes,
        )
        .graph(
            "Memory that is free",
            "Models that are loaded next must fit in here.",
            Query(_GPU.of("DCGM_FI_DEV_FB_FREE"), _NAME),
            unit=units.Mebibytes,
        )
        .graph(
            "Temperature",
            "Of the GPU's core.",
            Query(_GPU.of("DCGM_FI_DEV_GPU_TEMP"), _NAME),
            unit=units.Celsius,
        )
        .graph(
            "Power",
            "What the board takes.",
            Query(_GPU.of("DCGM_FI_DEV_POWER_USAGE"), _NAME),
            unit=units.Watt,
        )
        .graph(
            "Clock",
            "MHz of the multiprocessors. A fall under load: heat, or the limit of power.",
            Query(_GPU.of("DCGM_FI_DEV_SM_CLOCK"), _NAME),
        )
        .graph(
            "Last Xid",
            "A step is a new error; the same again is none. VisiongateGpuXid.",
            Query(_GPU.of("DCGM_FI_DEV_XID_ERRORS"), _NAME),
        )
        .graph(
            "Memory errors",
            "That could not be corrected; ECC where dcgm-exporter is told to count it. VisiongateGpuEcc.",
            Query(_GPU.of("DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS"), f"rows: {_NAME}"),
            Query(_GPU.of("DCGM_FI_DEV_ROW_REMAP_FAILURE"), f"remapping failed: {_NAME}"),
            Query(_GPU.of("DCGM_FI_DEV_ECC_DBE_VOL_TOTAL"), f"ECC: {_NAME}"),
        )
        .graph(
            "PCIe transfers that were repeated",
            "More than a few: the board does not sit well in its slot, or the slot is bad.",
            Query(f"rate({_GPU.of('DCGM_FI_DEV_PCIE_REPLAY_COUNTER')}[$__rate_interval])", _NAME),
            unit=units.CountsPerSecond,
        )
    )
